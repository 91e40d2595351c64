"""SPD: prune a fine-tuned encoder far, with little loss; and the strong baselines that it is compared with."""
