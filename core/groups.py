"""Sums of groups and cohorts: the counts of one (app, environment, version) over partitions, windows or versions."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from schemas.messages import Cohort, Counts, Group

Pairs = list[tuple[int, int]]


def merge_groups(groups: Iterable[Group]) -> tuple[Group, ...]:
    """Sum groups of the same (app, environment, version); sorted by that key, bins and names sorted.

    >>> g = Group(app="a", environment="e", version="v", n=1, bins={"refusal@1": [(0, 1)]})
    >>> merge_groups([g, g])[0].bins
    {'refusal@1': [(0, 2)]}
    """
    by_key: dict[tuple[str, str, str], list[Group]] = {}
    for group in groups:
        by_key.setdefault((group.app, group.environment, group.version), []).append(group)
    return tuple(same[0] if len(same) == 1 else _sum(key, same) for key, same in sorted(by_key.items()))


def first_turns(group: Group) -> Group | Counts:
    """The counts of a group's first turns: all that it counts, where no later ones are told apart."""
    return group if group.first is msgspec.UNSET else group.first


def _sum(key: tuple[str, str, str], groups: list[Group]) -> Group:
    whole = _counts(groups)
    later = [group.later for group in groups if group.later is not msgspec.UNSET]
    return Group(
        app=key[0],
        environment=key[1],
        version=key[2],
        n=whole.n,
        acts=whole.acts,
        bins=whole.bins,
        names=whole.names,
        first=msgspec.UNSET
        if all(group.first is msgspec.UNSET for group in groups)
        else _counts([first_turns(group) for group in groups]),
        later=_counts(later) if later else msgspec.UNSET,
    )


def _counts(counted: Sequence[Group | Counts]) -> Counts:
    names: dict[str, dict[str, int]] = {}
    for one in counted:
        for metric, named in one.names.items():
            labels = names.setdefault(metric, {})
            for name, count in named:
                labels[name] = labels.get(name, 0) + count
    return Counts(
        n=sum(one.n for one in counted),
        acts=sum(one.acts for one in counted),
        bins=_sum_bins(one.bins for one in counted),
        names={metric: sorted(labels.items()) for metric, labels in sorted(names.items())},
    )


def merge_cohorts(cohorts: Iterable[Cohort]) -> tuple[Cohort, ...]:
    """Sum cohorts of the same (app, environment, version, route epoch); sorted by that key, bins sorted."""
    by_key: dict[tuple[str, str, str, int], list[Cohort]] = {}
    for cohort in cohorts:
        by_key.setdefault((cohort.app, cohort.environment, cohort.version, cohort.route_epoch), []).append(cohort)
    return tuple(
        Cohort(
            app=app,
            environment=environment,
            version=version,
            route_epoch=route_epoch,
            n=sum(c.n for c in same),
            acts=sum(c.acts for c in same),
            bins=_sum_bins(c.bins for c in same),
        )
        for (app, environment, version, route_epoch), same in sorted(by_key.items())
    )


def _sum_bins(counted: Iterable[Mapping[str, Pairs]]) -> dict[str, Pairs]:
    bins: dict[str, dict[int, int]] = {}
    for one in counted:
        for metric, pairs in one.items():
            counts = bins.setdefault(metric, {})
            for bin_, count in pairs:
                counts[bin_] = counts.get(bin_, 0) + count
    return {metric: sorted(counts.items()) for metric, counts in sorted(bins.items())}
