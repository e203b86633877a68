"""The paper's tables: its `published` numbers, the trainings behind ours (`jobs`), and both side by side (`tables`)."""
