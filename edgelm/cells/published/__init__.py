"""The published MCSD block: vector states and fixed decays."""
