"""A canary under way: where it stands, and the evidence of its windows so far."""

from collections.abc import Sequence

import msgspec

from core.canary import Trial, TrialState
from schemas.messages import CanaryRules, Cohort


class Canary(msgspec.Struct, kw_only=True):
    """One canary, under the rules that held when it began. Times are window starts, ms."""

    id: str
    app: str
    environment: str
    candidate: str
    champion: str | None
    """None: whatever else answers under the canary's route epochs."""
    rules: CanaryRules
    began: int
    first_epoch: int
    step: int = 0
    step_began: int = 0
    step_units: int = 0
    """What the candidate has answered in this step."""
    weights: list[tuple[int, int]] = []
    """(route epoch, weight) of each step so far."""
    stopped: str = ""
    """By whose hand the route was changed meanwhile."""
    evidence: TrialState | None = None

    def trial(self) -> Trial:
        """The tests, as the windows so far left them."""
        return Trial(self.rules, self.evidence)

    def begin_step(self, step: int, epoch: int, weight: int, window: int) -> None:
        self.step, self.step_began, self.step_units = step, window, 0
        self.weights.append((epoch, weight))

    @property
    def is_last_step(self) -> bool:
        return self.step >= len(self.rules.weights) - 1

    def is_step_over(self, window: int) -> bool:
        """Whether the step has lasted and answered as much as the rules ask."""
        return window - self.step_began >= self.rules.step_s * 1000 and self.step_units >= self.rules.step_units

    def take(self, cohorts: Sequence[Cohort]) -> None:
        """Take one window's cohorts of the app; what was answered before the canary does not count."""
        mine = [c for c in cohorts if c.route_epoch >= self.first_epoch]
        candidate = [c for c in mine if c.version == self.candidate]
        others = [c for c in mine if c.version != self.candidate and self.champion in (None, c.version)]
        if not candidate and not others:
            return
        trial = self.trial()
        trial.add(candidate, others)
        for epoch, weight in self.weights:
            mine_units, other_units = (sum(c.n for c in arm if c.route_epoch == epoch) for arm in (candidate, others))
            trial.add_units(mine_units, other_units, weight)
        self.step_units += sum(c.n for c in candidate if c.route_epoch >= self.weights[-1][0])
        self.evidence = trial.state()
