"""What exists in the world: datasets and published weights, as data with a revision each, and their typed readers."""
