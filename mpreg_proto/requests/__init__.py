"""The machines of requests. They see the cluster only through `CatalogueView`, `NextHop` and the map of links."""
