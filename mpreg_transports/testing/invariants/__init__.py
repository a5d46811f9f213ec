"""The invariants: one file for each invariant or named group, and the oracles that they compare with."""
