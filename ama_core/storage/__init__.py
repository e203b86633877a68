"""What lies on disk: atomic writes, locks and safe readers (`files`), and trained models as folders (`bundle`)."""
