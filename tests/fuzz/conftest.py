"""A profile for hypofuzz, which needs new draws and a database: `--hypothesis-profile=hypofuzz`."""

from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase

settings.register_profile(
    "hypofuzz", derandomize=False, deadline=None, database=DirectoryBasedExampleDatabase(".hypothesis/examples")
)
