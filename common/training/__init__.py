"""What every training loop needs: ranks, engine steps, metrics, progress."""
