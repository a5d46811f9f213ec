"""The machines of requests. They read the cluster through `placement.CatalogueView`, `scheduler.NextHop` and its links."""
