"""What a request means and how it gets done. Sees the cluster only through `placement.CatalogueView`."""
