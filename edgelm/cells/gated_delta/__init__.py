"""Slope section and decay section with the gated delta rule, as MCSD-G joins them."""
