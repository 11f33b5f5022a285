"""The published comparison of SAM with other regularisers, task by task: ``hybridsam-bridge reproduce TASK``."""
