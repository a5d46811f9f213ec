"""Who is in the cluster, and what they offer (docs/explanation/membership.md). Knows nothing of requests."""
