"""What several tests share: programs and pairs of machines, typed as strictly as the packages."""
