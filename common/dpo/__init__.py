"""DPO: the policy learns from pairs directly, without a reward model and without sampling."""
