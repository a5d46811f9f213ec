"""Support for pytest: the plugin, `@simulate`, and `ClusterMachine` for hypothesis."""
