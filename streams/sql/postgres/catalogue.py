"""PostgreSQL's system catalogue for clients that look around: psql's `\\d`, DBeaver, Metabase, Grafana.

DuckDB has a part of it. `SETUP` makes the rest in the schema `postgres`: views with the columns that clients ask for,
empty ones for things that do not exist here, and macros for functions. `rewrite` makes a statement use them. Clients
find the tables in the schema `public`, whose name in DuckDB is `main`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from streams.sql.postgres.authentication import USER
from streams.sql.postgres.statements import tokens
from streams.sql.postgres.types import ALL, DUCKDB, FLOAT8, INT4, INT8, NUMERIC, SCALARS, TEXT

SCHEMA = "postgres"
"""Schema of everything here."""
DATABASE = "dabbawala"
VERSION = "15.0 (Dabbawala)"
"""Clients parse the number in front. psql chooses its queries by it."""

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "server_version": VERSION,
        "server_encoding": "UTF8",
        "client_encoding": "UTF8",
        "DateStyle": "ISO, MDY",
        "IntervalStyle": "postgres",
        "TimeZone": "UTC",
        "integer_datetimes": "on",
        "standard_conforming_strings": "on",
        "is_superuser": "off",
        "session_authorization": USER,
        "application_name": "",
        "default_transaction_read_only": "on",
        "in_hot_standby": "off",
    }
)
"""Settings that a client learns at its start."""
MORE_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "server_version_num": "150000",
        "search_path": "public",
        "transaction_isolation": "read committed",
        "default_transaction_isolation": "read committed",
        "transaction_read_only": "on",
        "max_identifier_length": "63",
        "max_index_keys": "32",
        "lc_collate": "C",
        "lc_ctype": "C",
        "extra_float_digits": "1",
        "bytea_output": "hex",
        "row_security": "off",
        "statement_timeout": "0",
        "block_size": "8192",
    }
)
"""Settings that a client may ask for."""
ALL_SETTINGS: Mapping[str, str] = MappingProxyType({**SETTINGS, **MORE_SETTINGS})

_OWNER = 10
_PUBLIC, _PG_CATALOG, _INFORMATION_SCHEMA = 2200, 11, 13000
_SYSTEM = {"pg_type": 1247, "pg_attribute": 1249, "pg_proc": 1255, "pg_class": 1259, "pg_database": 1262}
_SYSTEM |= {"pg_namespace": 2615, "pg_constraint": 2606, "pg_roles": 1260, "pg_trigger": 2620, "pg_am": 2601}
"""System table -> its OID, by which descriptions name the kind of a thing."""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _case(subject: str, values: Mapping[str, object], default: str) -> str:
    arms = " ".join(f"WHEN {_quoted(key)} THEN {value}" for key, value in values.items())
    return f"CASE {subject} {arms} ELSE {default} END"


def _scalar_oid(subject: str) -> str:
    """Return the SQL for the OID of a type that is no array."""
    return (
        f"CASE WHEN {subject} LIKE 'DECIMAL(%' THEN 1700 "
        f"WHEN starts_with({subject}, 'STRUCT(') OR starts_with({subject}, 'MAP(') OR starts_with({subject}, 'UNION(') "
        f"THEN 114 ELSE {_case(subject, {name: kind.oid for name, kind in DUCKDB.items()}, str(TEXT.oid))} END"
    )


def _array_oid(subject: str) -> str:
    """Return the SQL for the OID of the arrays of a type, JSON for those without a type."""
    arrays = {str(kind.oid): kind.array for kind in SCALARS if kind.oid != 114}
    return (
        f"CASE WHEN {subject} LIKE '%]' THEN 114 ELSE {_case(f'({_scalar_oid(subject)})::VARCHAR', arrays, '114')} END"
    )


_TYPE = "data_type"
_ELEMENT = "regexp_replace(data_type, '\\[\\d*\\]$', '')"
_OID = f"CASE WHEN {_TYPE} LIKE '%]' THEN {_array_oid(_ELEMENT)} ELSE {_scalar_oid(_TYPE)} END"
_OURS = "database_name NOT IN ('system', 'temp') AND schema_name = 'main' AND NOT internal"

_TYPE_ROWS = ", ".join(
    f"({kind.oid}, '{kind.name}', '{kind.title}', {kind.length}, '{kind.category}', {kind.element}, {kind.array})"
    for kind in ALL.values()
)
_MORE_TYPES = ", ".join(
    f"({oid}, '{name}', '{title}', {length}, '{category}', 0, {array})"
    for oid, name, title, length, category, array in (
        (18, "char", '"char"', 1, "Z", 1002),
        (19, "name", "name", 64, "S", 1003),
        (26, "oid", "oid", 4, "N", 1028),
        (705, "unknown", "unknown", -2, "X", 0),
        (1042, "bpchar", "character", -1, "S", 1014),
        (1043, "varchar", "character varying", -1, "S", 1015),
    )
)

VIEWS: Mapping[str, str] = MappingProxyType(
    {
        "pg_namespace": f"""
            SELECT * FROM (VALUES ({_PG_CATALOG}, 'pg_catalog', {_OWNER}, NULL::VARCHAR[]),
                ({_PUBLIC}, 'public', {_OWNER}, NULL), ({_INFORMATION_SCHEMA}, 'information_schema', {_OWNER}, NULL))
            names(oid, nspname, nspowner, nspacl)""",
        "pg_class": f"""
            SELECT oid, relname, {_PUBLIC} AS relnamespace, 0 AS reltype, 0 AS reloftype, {_OWNER} AS relowner,
                CASE relkind WHEN 'r' THEN 2 ELSE 0 END AS relam, 0 AS relfilenode, 0 AS reltablespace, 0 AS relpages,
                -1::FLOAT AS reltuples, 0 AS relallvisible, 0 AS reltoastrelid, false AS relhasindex,
                false AS relisshared, 'p' AS relpersistence, relkind, relnatts::SMALLINT AS relnatts,
                0::SMALLINT AS relchecks, false AS relhasrules, false AS relhastriggers, false AS relhassubclass,
                false AS relrowsecurity, false AS relforcerowsecurity, true AS relispopulated, 'd' AS relreplident,
                false AS relispartition, 0 AS relrewrite, 0 AS relfrozenxid, 0 AS relminmxid,
                NULL::VARCHAR[] AS relacl, NULL::VARCHAR[] AS reloptions, NULL::VARCHAR AS relpartbound,
                false AS relhasoids
            FROM (SELECT table_oid AS oid, table_name AS relname, 'r' AS relkind, column_count AS relnatts
                    FROM duckdb_tables() WHERE {_OURS}
                UNION ALL SELECT view_oid, view_name, 'v', column_count FROM duckdb_views() WHERE {_OURS})""",
        "pg_attribute": f"""
            SELECT table_oid AS attrelid, column_name AS attname, {_OID} AS atttypid, -1 AS attstattarget,
                -1::SMALLINT AS attlen, column_index::SMALLINT AS attnum, 0 AS attndims, -1 AS attcacheoff,
                CASE WHEN {_TYPE} LIKE 'DECIMAL(%' AND {_TYPE} NOT LIKE '%]'
                    THEN numeric_precision * 65536 + numeric_scale + 4 ELSE -1 END AS atttypmod,
                false AS attbyval, 'x' AS attstorage, 'i' AS attalign, '' AS attcompression,
                NOT is_nullable AS attnotnull, false AS atthasdef, false AS atthasmissing, '' AS attidentity,
                '' AS attgenerated, false AS attisdropped, true AS attislocal, 0 AS attinhcount, 0 AS attcollation,
                NULL::VARCHAR[] AS attacl, NULL::VARCHAR[] AS attoptions, NULL::VARCHAR[] AS attfdwoptions,
                NULL::VARCHAR AS attmissingval
            FROM duckdb_columns() WHERE {_OURS}""",
        "pg_type": f"""
            SELECT oid, typname, title AS typtitle, {_PG_CATALOG} AS typnamespace, {_OWNER} AS typowner, typlen,
                typlen BETWEEN 1 AND 8 AS typbyval, 'b' AS typtype, typcategory, false AS typispreferred,
                true AS typisdefined, ',' AS typdelim, 0 AS typrelid, '-' AS typsubscript, typelem, typarray,
                CASE WHEN typelem <> 0 THEN 'array_in' ELSE typname || 'in' END AS typinput,
                CASE WHEN typelem <> 0 THEN 'array_out' ELSE typname || 'out' END AS typoutput,
                typname || 'recv' AS typreceive, typname || 'send' AS typsend, '-' AS typmodin, '-' AS typmodout,
                '-' AS typanalyze, 'i' AS typalign, 'x' AS typstorage, false AS typnotnull, 0 AS typbasetype,
                -1 AS typtypmod, 0 AS typndims, 0 AS typcollation, NULL::VARCHAR AS typdefault,
                NULL::VARCHAR[] AS typacl
            FROM (VALUES {_TYPE_ROWS}, {_MORE_TYPES})
                types(oid, typname, title, typlen, typcategory, typelem, typarray)""",
        "pg_database": f"""
            SELECT 16384 AS oid, '{DATABASE}' AS datname, {_OWNER} AS datdba, 6 AS encoding, 'c' AS datlocprovider,
                false AS datistemplate, true AS datallowconn, -1 AS datconnlimit, 0 AS datfrozenxid,
                1663 AS dattablespace,
                'C' AS datcollate, 'C' AS datctype, NULL::VARCHAR AS daticulocale, NULL::VARCHAR AS datcollversion,
                NULL::VARCHAR[] AS datacl""",
        "pg_roles": f"""
            SELECT {_OWNER} AS oid, '{USER}' AS rolname, false AS rolsuper, true AS rolinherit, false AS rolcreaterole,
                false AS rolcreatedb, true AS rolcanlogin, false AS rolreplication, -1 AS rolconnlimit,
                NULL::VARCHAR AS rolpassword, NULL::TIMESTAMPTZ AS rolvaliduntil, false AS rolbypassrls,
                NULL::VARCHAR[] AS rolconfig""",
        "pg_user": f"SELECT '{USER}' AS usename, {_OWNER} AS usesysid, false AS usecreatedb, false AS usesuper",
        "pg_am": "SELECT 2 AS oid, 'heap' AS amname, 'heap_tableam_handler' AS amhandler, 't' AS amtype",
        "pg_tables": f"""
            SELECT 'public' AS schemaname, relname AS tablename, '{USER}' AS tableowner, NULL::VARCHAR AS tablespace,
                false AS hasindexes, false AS hasrules, false AS hastriggers, false AS rowsecurity
            FROM {SCHEMA}.pg_class WHERE relkind = 'r'""",
        "pg_views": f"""
            SELECT 'public' AS schemaname, view_name AS viewname, '{USER}' AS viewowner, sql AS definition
            FROM duckdb_views() WHERE {_OURS}""",
        "pg_description": f"""
            SELECT table_oid AS objoid, {_SYSTEM["pg_class"]} AS classoid, 0 AS objsubid, comment AS description
                FROM duckdb_tables() WHERE {_OURS} AND comment IS NOT NULL
            UNION ALL SELECT view_oid, {_SYSTEM["pg_class"]}, 0, comment
                FROM duckdb_views() WHERE {_OURS} AND comment IS NOT NULL
            UNION ALL SELECT table_oid, {_SYSTEM["pg_class"]}, column_index, comment
                FROM duckdb_columns() WHERE {_OURS} AND comment IS NOT NULL""",
        "pg_settings": "SELECT * FROM (VALUES "
        + ", ".join(
            f"({_quoted(name)}, {_quoted(value)}, NULL::VARCHAR, 'string')" for name, value in ALL_SETTINGS.items()
        )
        + ") settings(name, setting, unit, vartype)",
        "information_schema_tables": f"""
            SELECT '{DATABASE}' AS table_catalog, 'public' AS table_schema, relname AS table_name,
                CASE relkind WHEN 'r' THEN 'BASE TABLE' ELSE 'VIEW' END AS table_type,
                'NO' AS is_insertable_into, 'NO' AS is_typed
            FROM {SCHEMA}.pg_class""",
        "information_schema_columns": f"""
            SELECT '{DATABASE}' AS table_catalog, 'public' AS table_schema, relname AS table_name,
                attname AS column_name, attnum AS ordinal_position, NULL::VARCHAR AS column_default,
                CASE WHEN attnotnull THEN 'NO' ELSE 'YES' END AS is_nullable,
                CASE WHEN typelem <> 0 THEN 'ARRAY' ELSE typtitle END AS data_type,
                NULL::INTEGER AS character_maximum_length,
                CASE WHEN atttypmod >= 4 THEN (atttypmod - 4) // 65536 END AS numeric_precision,
                CASE WHEN atttypmod >= 4 THEN (atttypmod - 4) % 65536 END AS numeric_scale,
                NULL::INTEGER AS datetime_precision, 'pg_catalog' AS udt_schema, typname AS udt_name,
                'NO' AS is_identity, 'NEVER' AS is_generated, 'NO' AS is_updatable
            FROM {SCHEMA}.pg_attribute a JOIN {SCHEMA}.pg_class c ON c.oid = attrelid
                JOIN {SCHEMA}.pg_type t ON t.oid = atttypid""",
        "information_schema_schemata": f"""
            SELECT '{DATABASE}' AS catalog_name, nspname AS schema_name, '{USER}' AS schema_owner
            FROM {SCHEMA}.pg_namespace""",
    }
)
"""View -> its query. A view may use those above it."""

EMPTY: Mapping[str, str] = MappingProxyType(
    {
        "pg_aggregate": "aggfnoid BIGINT",
        "pg_attrdef": "oid BIGINT, adrelid BIGINT, adnum SMALLINT, adbin VARCHAR",
        "pg_auth_members": "roleid BIGINT, member BIGINT, grantor BIGINT, admin_option BOOLEAN",
        "pg_cast": "oid BIGINT, castsource BIGINT, casttarget BIGINT",
        "pg_collation": "oid BIGINT, collname VARCHAR, collnamespace BIGINT, collprovider VARCHAR",
        "pg_constraint": "oid BIGINT, conname VARCHAR, connamespace BIGINT, contype VARCHAR, condeferrable BOOLEAN, "
        "condeferred BOOLEAN, convalidated BOOLEAN, conrelid BIGINT, contypid BIGINT, conindid BIGINT, "
        "conparentid BIGINT, confrelid BIGINT, confupdtype VARCHAR, confdeltype VARCHAR, confmatchtype VARCHAR, "
        "conislocal BOOLEAN, coninhcount INTEGER, connoinherit BOOLEAN, conkey SMALLINT[], confkey SMALLINT[], "
        "conbin VARCHAR",
        "pg_depend": "classid BIGINT, objid BIGINT, objsubid INTEGER, refclassid BIGINT, refobjid BIGINT, "
        "refobjsubid INTEGER, deptype VARCHAR",
        "pg_enum": "oid BIGINT, enumtypid BIGINT, enumsortorder FLOAT, enumlabel VARCHAR",
        "pg_event_trigger": "oid BIGINT, evtname VARCHAR",
        "pg_extension": "oid BIGINT, extname VARCHAR, extnamespace BIGINT, extversion VARCHAR",
        "pg_foreign_server": "oid BIGINT, srvname VARCHAR",
        "pg_foreign_table": "ftrelid BIGINT, ftserver BIGINT, ftoptions VARCHAR[]",
        "pg_index": "indexrelid BIGINT, indrelid BIGINT, indnatts SMALLINT, indnkeyatts SMALLINT, indisunique BOOLEAN, "
        "indisprimary BOOLEAN, indisexclusion BOOLEAN, indimmediate BOOLEAN, indisclustered BOOLEAN, "
        "indisvalid BOOLEAN, indisready BOOLEAN, indislive BOOLEAN, indisreplident BOOLEAN, indkey SMALLINT[], "
        "indoption SMALLINT[], indclass BIGINT[], indexprs VARCHAR, indpred VARCHAR",
        "pg_indexes": "schemaname VARCHAR, tablename VARCHAR, indexname VARCHAR, tablespace VARCHAR, indexdef VARCHAR",
        "pg_inherits": "inhrelid BIGINT, inhparent BIGINT, inhseqno INTEGER, inhdetachpending BOOLEAN",
        "pg_language": "oid BIGINT, lanname VARCHAR",
        "pg_locks": "locktype VARCHAR, pid INTEGER",
        "pg_matviews": "schemaname VARCHAR, matviewname VARCHAR, matviewowner VARCHAR, definition VARCHAR",
        "pg_operator": "oid BIGINT, oprname VARCHAR, oprnamespace BIGINT",
        "pg_partitioned_table": "partrelid BIGINT, partstrat VARCHAR",
        "pg_policy": "oid BIGINT, polname VARCHAR, polrelid BIGINT, polcmd VARCHAR, polpermissive BOOLEAN, "
        "polroles BIGINT[], polqual VARCHAR, polwithcheck VARCHAR",
        "pg_proc": "oid BIGINT, proname VARCHAR, pronamespace BIGINT, proowner BIGINT, prolang BIGINT, "
        "prokind VARCHAR, proretset BOOLEAN, prorettype BIGINT, pronargs SMALLINT, proargtypes BIGINT[], "
        "proallargtypes BIGINT[], "
        "proargmodes VARCHAR[], proargnames VARCHAR[], prosrc VARCHAR, provolatile VARCHAR, proparallel VARCHAR, "
        "prosecdef BOOLEAN, proacl VARCHAR[], provariadic BIGINT",
        "pg_publication": "oid BIGINT, pubname VARCHAR, puballtables BOOLEAN",
        "pg_publication_namespace": "oid BIGINT, pnpubid BIGINT, pnnspid BIGINT",
        "pg_publication_rel": "oid BIGINT, prpubid BIGINT, prrelid BIGINT, prqual VARCHAR, prattrs SMALLINT[]",
        "pg_range": "rngtypid BIGINT, rngsubtype BIGINT",
        "pg_rewrite": "oid BIGINT, rulename VARCHAR, ev_class BIGINT, ev_enabled VARCHAR, ev_type VARCHAR",
        "pg_rules": "schemaname VARCHAR, tablename VARCHAR, rulename VARCHAR, definition VARCHAR",
        "pg_sequence": "seqrelid BIGINT",
        "pg_sequences": "schemaname VARCHAR, sequencename VARCHAR",
        "pg_shdescription": "objoid BIGINT, classoid BIGINT, description VARCHAR",
        "pg_stat_activity": "datid BIGINT, pid INTEGER, usename VARCHAR, state VARCHAR, query VARCHAR",
        "pg_stat_user_tables": "relid BIGINT, schemaname VARCHAR, relname VARCHAR, n_live_tup BIGINT",
        "pg_statistic_ext": "oid BIGINT, stxrelid BIGINT, stxname VARCHAR, stxnamespace BIGINT, stxkind VARCHAR[], "
        "stxstattarget INTEGER",
        "pg_tablespace": "oid BIGINT, spcname VARCHAR, spcowner BIGINT",
        "pg_trigger": "oid BIGINT, tgrelid BIGINT, tgparentid BIGINT, tgname VARCHAR, tgfoid BIGINT, tgtype SMALLINT, "
        "tgenabled VARCHAR, tgisinternal BOOLEAN, tgconstraint BIGINT, tgnargs SMALLINT, tgargs BLOB",
    }
)
"""View of things that do not exist here -> its columns."""

_READS = "lower({}) IN ('select', 'usage', 'connect')"
_PRIVILEGE = f"(thing, privilege) AS {_READS.format('privilege')}, (who, thing, kind) AS {_READS.format('kind')}"
_NO_TEXT = "NULL::VARCHAR"
_NUMBERED = "CASE WHEN try_cast(name AS BIGINT) IS NOT NULL THEN try_cast(name AS BIGINT) ELSE {} END"
_LAST_PART = "regexp_replace(replace(name, '\"', ''), '^.*[.]', '')"

MACROS: Mapping[str, str] = MappingProxyType(
    {
        "array_lower": "(items, dimension) AS CASE WHEN len(items) > 0 THEN 1 END",
        "array_upper": "(items, dimension) AS CASE WHEN len(items) > 0 THEN len(items) END",
        "col_description": f"(thing, number) AS (SELECT any_value(description) FROM {SCHEMA}.pg_description "
        "WHERE objoid = thing AND objsubid = number)",
        "current_database": f"() AS '{DATABASE}'",
        "current_schema": "() AS 'public'",
        "current_schemas": "(implicit) AS CASE WHEN implicit THEN ['pg_catalog', 'public'] ELSE ['public'] END",
        "current_setting": "(name) AS {0}, (name, missing_ok) AS {0}".format(
            _case(
                "lower(name)",
                {key.lower(): _quoted(value) for key, value in ALL_SETTINGS.items()},
                _NO_TEXT,
            )
        ),
        "format_type": f"""(kind, modifier) AS (SELECT any_value(typtitle) || CASE WHEN kind = 1700 AND modifier >= 4
            THEN '(' || ((modifier - 4) // 65536) || ',' || ((modifier - 4) % 65536) || ')' ELSE '' END
            FROM {SCHEMA}.pg_type WHERE oid = kind)""",
        "has_any_column_privilege": _PRIVILEGE,
        "has_database_privilege": _PRIVILEGE,
        "has_schema_privilege": _PRIVILEGE,
        "has_table_privilege": _PRIVILEGE,
        "inet_server_port": "() AS NULL::INTEGER",
        "obj_description": f"(thing) AS (SELECT any_value(description) FROM {SCHEMA}.pg_description "
        "WHERE objoid = thing AND objsubid = 0), (thing, kind) AS (SELECT any_value(description) "
        f"FROM {SCHEMA}.pg_description WHERE objoid = thing AND objsubid = 0)",
        "parse_ident": "(name) AS string_to_array(replace(name, '\"', ''), '.')",
        "pg_advisory_unlock_all": f"() AS {_NO_TEXT}",
        "pg_backend_pid": "() AS 0",
        "pg_encoding_to_char": "(code) AS 'UTF8'",
        "pg_get_constraintdef": f"(thing) AS {_NO_TEXT}, (thing, pretty) AS {_NO_TEXT}",
        "pg_get_expr": f"(tree, thing) AS {_NO_TEXT}, (tree, thing, pretty) AS {_NO_TEXT}",
        "pg_get_function_arguments": f"(thing) AS {_NO_TEXT}",
        "pg_get_function_identity_arguments": f"(thing) AS {_NO_TEXT}",
        "pg_get_function_result": f"(thing) AS {_NO_TEXT}",
        "pg_get_functiondef": f"(thing) AS {_NO_TEXT}",
        "pg_get_indexdef": f"(thing) AS {_NO_TEXT}, (thing, number, pretty) AS {_NO_TEXT}",
        "pg_get_partkeydef": f"(thing) AS {_NO_TEXT}",
        "pg_get_ruledef": f"(thing) AS {_NO_TEXT}, (thing, pretty) AS {_NO_TEXT}",
        "pg_get_serial_sequence": f"(thing, part) AS {_NO_TEXT}",
        "pg_get_statisticsobjdef_columns": f"(thing) AS {_NO_TEXT}",
        "pg_get_triggerdef": f"(thing) AS {_NO_TEXT}, (thing, pretty) AS {_NO_TEXT}",
        "pg_get_userbyid": f"(thing) AS '{USER}'",
        "pg_get_viewdef": "(thing) AS (SELECT any_value(sql) FROM duckdb_views() WHERE view_oid = thing), "
        "(thing, pretty) AS (SELECT any_value(sql) FROM duckdb_views() WHERE view_oid = thing)",
        "pg_is_in_recovery": "() AS false",
        "pg_relation_is_publishable": "(thing) AS false",
        "pg_relation_size": "(thing) AS 0",
        "pg_table_size": "(thing) AS 0",
        "pg_total_relation_size": "(thing) AS 0",
        "quote_ident": "(name) AS CASE WHEN regexp_full_match(name, '[a-z_][a-z0-9_$]*') THEN name "
        "ELSE '\"' || replace(name, '\"', '\"\"') || '\"' END",
        "quote_literal": "(value) AS '''' || replace(value, '''', '''''') || ''''",
        "regclass": "(name) AS "
        + _NUMBERED.format(
            _case(_LAST_PART, _SYSTEM, f"(SELECT any_value(oid) FROM {SCHEMA}.pg_class WHERE relname = {_LAST_PART})")
        ),
        "regproc": f"(name) AS {_LAST_PART}",
        "regtype": "(name) AS "
        + _NUMBERED.format(
            f"(SELECT any_value(oid) FROM {SCHEMA}.pg_type WHERE typname = {_LAST_PART} OR typtitle = lower(name))"
        ),
        "set_config": "(name, value, is_local) AS value",
        "shobj_description": f"(thing, kind) AS {_NO_TEXT}",
        "version": f"() AS 'PostgreSQL {VERSION}'",
    }
)
"""Function -> its parameters and body."""
TABLE_MACROS: Mapping[str, str] = MappingProxyType(
    {
        "pg_get_keywords": "() AS TABLE SELECT keyword_name AS word, upper(keyword_category[1]) AS catcode, "
        "keyword_category AS catdesc FROM duckdb_keywords()",
    }
)


def _setup() -> Iterator[str]:
    yield f"CREATE SCHEMA {SCHEMA}"
    for name, query in VIEWS.items():
        yield f"CREATE VIEW {SCHEMA}.{name} AS {query}"
    for name, columns in EMPTY.items():
        nulls = ", ".join("NULL::{1} AS {0}".format(*column.split()) for column in columns.split(", "))
        yield f"CREATE VIEW {SCHEMA}.{name} AS SELECT {nulls} WHERE false"
    for name, body in {**MACROS, **TABLE_MACROS}.items():
        yield f"CREATE MACRO {SCHEMA}.{name}{body}"


SETUP: tuple[str, ...] = tuple(_setup())
"""Statements that make the catalogue in a new DuckDB database with the tables, before it is locked."""

_RELATIONS = {name for name in (*VIEWS, *EMPTY) if name.startswith("pg_")}
_FUNCTIONS = {*MACROS, *TABLE_MACROS} - {"regclass", "regproc", "regtype"}
_PLAIN = _RELATIONS | {"pg_catalog", "information_schema", "public", DATABASE, "tables", "columns", "schemata"}
"""Names that mean the same with double quotes and without."""

_LITERAL, _NAME = "\0", "\1"
_CONSTANT = rf"(?:{_LITERAL}\d+{_LITERAL}|\$\d+)"
_NESTED = r"(?:[^()]|\((?:[^()]|\([^()]*\))*\))*"
"""Text with balanced parentheses, two deep."""


def _in_catalogue(found: re.Match[str]) -> str:
    """Return a name of `pg_catalog` as it is here: functions and types of DuckDB stand without a schema."""
    name, call = found["name"], found["call"] or ""
    if name.lower() in _RELATIONS | _FUNCTIONS:
        return f"{SCHEMA}.{name}{call}"
    is_relation = name.lower().startswith("pg_") and not call
    return found[0] if is_relation else name + call


_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        (r"\boperator\s*\(\s*(?:pg_catalog\s*\.\s*)?([^)\s\w]+)\s*\)", r" \1 "),
        (rf"\bcollate\s+(?:pg_catalog\s*\.\s*)?(?:default|{_NAME}\d+{_NAME})", ""),
        # A function in FROM that DuckDB has for values only: its alias names the value.
        (rf",\s*(string_to_array\({_NESTED}\))\s+(?:as\s+)?(\w+)(?=\s*\))", r", (SELECT \1 AS \2) \2"),
        (rf"\b(any|all)\s*\(\s*({_LITERAL}\d+{_LITERAL})\s*\)", r"\1(string_to_array(trim(\2, '{}'), ','))"),
        (rf"({_CONSTANT})\s*::\s*(?:pg_catalog\s*\.\s*)?(regclass|regtype|regproc)\b", rf"{SCHEMA}.\2(\1)"),
        (r"(?<![\w.])(\w+(?:\.\w+)?)\s*::\s*(?:pg_catalog\s*\.\s*)?regtype\b(?!\[)", rf"{SCHEMA}.format_type(\1, -1)"),
        (r"::\s*(?:pg_catalog\s*\.\s*)?(?:reg(?:class|type|proc|procedure|role|namespace|oper)|name)\b", "::VARCHAR"),
        (r"\binformation_schema\s*\.\s*(tables|columns|schemata)\b", rf"{SCHEMA}.information_schema_\1"),
        (rf"(?<![\w.])(?:{DATABASE}\s*\.\s*)?public\s*\.\s*(?=[\w{_NAME}])", "main."),
        (r"(?<![\w.])pg_catalog\s*\.\s*(?P<name>\w+)(?P<call>\s*\()?", _in_catalogue),
        (rf"(?<![\w.])({'|'.join(sorted(_RELATIONS))})\b(?!\s*\()", rf"{SCHEMA}.\1"),
        (rf"(?<![\w.])({'|'.join(sorted(_FUNCTIONS))})(?=\s*\()", rf"{SCHEMA}.\1"),
        (r"(?<![\w.])(?:current_user|session_user)\b(?!\s*\()", f"'{USER}'"),
    )
)
"""Pattern -> replacement, in the order of their use. Literals and quoted names are marks with a number."""


def rewrite(sql: str) -> str:
    """Return a statement that uses the catalogue of this module where it uses PostgreSQL's."""
    marked: list[str] = []
    text = "".join(_marked(token.kind, token.text, marked) for token in tokens(sql))
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return _MARK.sub(lambda found: marked[int(found["number"])], text)


def parameter_types(sql: str) -> dict[int, int]:
    """Return parameter -> OID of its type where the text shows it: `ANY($1)`, `LIMIT $2`, `$3::bigint`."""
    text = "".join(token.text for token in tokens(sql) if token.kind == "code")
    arrays = {int(found[1]): TEXT.array for found in _ARRAY_PARAMETER.finditer(text)}
    limits = {int(found[1]): INT8.oid for found in _LIMIT_PARAMETER.finditer(text)}
    casts = {int(found[1]): _CASTS.get(found[2].lower(), TEXT.oid) for found in _CAST_PARAMETER.finditer(text)}
    return casts | limits | arrays


_ARRAY_PARAMETER = re.compile(r"\b(?:any|all)\s*\(\s*\$(\d{1,5})\s*\)", re.IGNORECASE)
_LIMIT_PARAMETER = re.compile(r"\b(?:limit|offset)\s*\$(\d{1,5})\b", re.IGNORECASE)
_CAST_PARAMETER = re.compile(r"\$(\d{1,5})\s*::\s*(\w+)\b(?!\s*\[)")
_CASTS: Mapping[str, int] = MappingProxyType(
    {kind.name: kind.oid for kind in SCALARS}
    | {name.lower(): kind.oid for name, kind in DUCKDB.items() if " " not in name}
    | {"int": INT4.oid, "decimal": NUMERIC.oid, "double": FLOAT8.oid}
)
"""Name of a type in a cast -> its OID."""
_MARK = re.compile(rf"(?P<sign>[{_LITERAL}{_NAME}])(?P<number>\d+)(?P=sign)")


def _marked(kind: str, text: str, marked: list[str]) -> str:
    if kind == "comment":
        return " "
    if kind not in ("literal", "name"):
        return text
    if kind == "name" and text[1:-1] in _PLAIN:
        return text[1:-1]
    marked.append(text)
    sign = _LITERAL if kind == "literal" else _NAME
    return f"{sign}{len(marked) - 1}{sign}"
