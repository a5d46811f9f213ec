"""Who is in the cluster, and what they offer (MEMBERSHIP.md). Knows nothing of requests."""
