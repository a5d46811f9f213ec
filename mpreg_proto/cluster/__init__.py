"""The members of the cluster and their offers (docs/explanation/membership.md). This package does not depend on
requests."""
