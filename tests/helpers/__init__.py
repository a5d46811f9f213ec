"""Helpers that several tests share: programs and machine harnesses, typed as strictly as the packages."""
