"""A sweep over rho and seeds with Optuna, in parallel processes, that goes on where it was stopped.

Needs ``pip install optuna``. Start the same command several times to use several processes: they share the study in
the database. Run: python examples/sweep_optuna.py [trials]
"""

from __future__ import annotations

import sys
from pathlib import Path

from hybridsam_bridge.tasks.session import open_session, run

STORAGE = "runs/sweep.db"


def objective(trial) -> float:
    """Loss of one run of the hare-lynx task; every trial has a run folder of its own."""
    rho = trial.suggest_float("rho", 1e-3, 0.5, log=True)
    seed = trial.suggest_int("seed", 0, 4)
    data = {"optimizer": {"rho": rho}, "train": {"seed": seed, "steps": 100}, "output": {"folder": "runs/sweep"}}
    folder, _, summary = run(open_session(data, "sweep", Path()), progress=False)
    trial.set_user_attr("folder", str(folder.path))
    for name, value in summary["rates"].items():
        trial.set_user_attr(name, value)
    return summary["loss"]


def main(trials: int = 10) -> None:
    """Run ``trials`` more trials of the study and print the best one."""
    import optuna

    Path(STORAGE).parent.mkdir(exist_ok=True)
    study = optuna.create_study(storage=f"sqlite:///{STORAGE}", study_name="hare_lynx", load_if_exists=True)
    study.optimize(objective, n_trials=trials)
    print(f"{len(study.trials)} trials; best loss {study.best_value:.4f} at {study.best_params}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
