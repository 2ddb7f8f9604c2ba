"""Amounts of money for people. Records hold them as integers in minor units."""

_CURRENCIES_BY_DIGITS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
"""Decimal digits of the minor unit -> currencies (ISO 4217, list one)."""
MINOR_DIGITS = {currency: digits for digits, codes in _CURRENCIES_BY_DIGITS.items() for currency in codes.split()}
USUAL_DIGITS = 2


def amount_text(minor_units: int, currency: str) -> str:
    """Return an amount as `INR 640.00`, `JPY 640` or `KWD 0.640`; without a currency as `640.00`."""
    digits = MINOR_DIGITS.get(currency, USUAL_DIGITS)
    whole, fraction = divmod(abs(minor_units), 10**digits)
    amount = f"{'-' if minor_units < 0 else ''}{whole}" + (f".{fraction:0{digits}d}" if digits else "")
    return f"{currency} {amount}".strip()
