"""The settings of aiokafka's clients, whose values have many types."""

from collections.abc import Mapping
from typing import Any

ClientSettings = Mapping[str, Any]
"""Keyword arguments with which any aiokafka client reaches the cluster."""
