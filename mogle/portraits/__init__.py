"""Procedural portraits: picture, exact 19-class mask, attributes and captions from one seed."""

from __future__ import annotations

from mogle.portraits.attributes import ATTRIBUTES, STYLES, Attribute, sample_attributes

__all__ = ["ATTRIBUTES", "STYLES", "Attribute", "sample_attributes"]
