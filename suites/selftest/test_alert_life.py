"""The judges of the alert's life, on a life made by hand: it holds, and each departure from it is found by the claim that is about it."""

import copy

import pytest

from suites.support import alert_life, alerts, requirements
from suites.support.alert_life import ALERT, ALERTS, CRITICAL, GROUPED, LOUD, QUIET, SHAKY, SILENCED, STEADY
from suites.support.alerts import FIRING, REFERENCE, RESOLVED

BEGAN = 1000.0
TIMES = REFERENCE.scaled(30)
SOURCES = {LOUD: "ns/loud", QUIET: "ns/quiet"}
SEVERITIES = {ALERT: "warning", GROUPED: "warning", CRITICAL: "critical", SILENCED: "info"}
EXPIRED = BEGAN + 16.5
FOUND = {name: entry.judge for name, entry in requirements.discover().items() if name.startswith("alerts.")}


def stamped(points):
    states = alerts.expected_states(points, threshold=5, hold=TIMES.hold)
    return {state: [at for (at, _), seen in zip(points, states, strict=True) if seen == state] for state in (alerts.PENDING, FIRING)}


def one(calls, first, last):
    return {"failing": calls.failing, "count": calls.count, "first": first, "last": last, "statuses": {"500" if calls.failing else "200": calls.count}}


def loud():
    """A fifth fails for 21 s; the share is above the threshold from 2 s to 29 s."""
    points = [(BEGAN + at, None if at < 2 else 20.0 if at < 22 else max(0.0, 20.0 - 2.2 * (at - 21))) for at in range(-5, 50)]
    stimulus = [one(alert_life.LOUD_FAILING, BEGAN + 0.5, BEGAN + 21.5), one(alert_life.LOUD_ANSWERED, BEGAN + 0.5, BEGAN + 30.5)]
    return {"points": [list(point) for point in points], "alerts": {name: stamped(points) for name in ALERTS}, "stimulus": stimulus}


def quiet():
    """Three times above the threshold for 4 s, then four per cent."""
    flaps = {at for start in (2, 8, 14) for at in range(start, start + 4)}
    points = [(BEGAN + at, None if at < 1 else 8.0 if at in flaps else 3.0 if at < 21 else 4.0) for at in range(-5, 50)]
    each = 20.0 / len(alert_life.FLAPPING)
    stimulus = [one(calls, BEGAN + 0.5 + each * place, BEGAN + 0.5 + each * (place + 1)) for place, calls in enumerate(alert_life.FLAPPING)]
    stimulus += [one(calls, BEGAN + 21, BEGAN + 45) for calls in (alert_life.BELOW_FAILING, alert_life.BELOW_ANSWERED)]
    return {"points": [list(point) for point in points], "alerts": {name: stamped(points) for name in ALERTS}, "stimulus": stimulus}


def carried(*names, status=FIRING):
    annotations = {"summary": "High function error rate", "description": "More than 5 % of all invocations fail: 20 %."}
    return [{
        "status": status, "labels": {"alertname": name, "severity": SEVERITIES[name], "prometheus": SOURCES[LOUD]}, "annotations": annotations if name == ALERT else {},
    } for name in names]


def came(at, inbox, *names, status=FIRING, refused=False):
    return {"inbox": inbox, "at": BEGAN + at, "refused": refused, "status": status, "receiver": inbox, "group": {}, "alerts": carried(*names, status=status)}


def life():
    world = {"pods": {"u": {"pod": "p", "restarts": 0, "ready_since": "t"}}, "ended_on_purpose": []}
    silenced = {"state": "suppressed", "silenced_by": ["s-1"]}
    active = {"state": "active", "silenced_by": []}
    return {
        "times": vars(TIMES), "began": BEGAN, "accepted_at": BEGAN + 14.0, "silence": {"id": "s-1", "expired_at": EXPIRED},
        "alertmanager": [{"at": BEGAN + 12.5, "alerts": {ALERT: active, SILENCED: silenced}}, {"at": BEGAN + 17, "alerts": {ALERT: active, SILENCED: active}}],
        "notifications": [
            came(13.2, STEADY, ALERT, GROUPED), came(13.2, SHAKY, CRITICAL, refused=True), came(13.7, SHAKY, CRITICAL, refused=True), came(14.6, SHAKY, CRITICAL),
            came(17.2, STEADY, SILENCED), came(33.2, STEADY, ALERT, GROUPED, status=RESOLVED), came(33.2, SHAKY, CRITICAL, status=RESOLVED),
            came(33.4, STEADY, SILENCED, status=RESOLVED),
        ],
        "sources": SOURCES, "before": world, "after": copy.deepcopy(world), LOUD: loud(), QUIET: quiet(),
    }


def refuted(requirement, changed):
    return [claim.name for claim in FOUND[requirement]({"life": changed}).claims if claim.held is False]


def test_there_is_a_judge_for_every_fact_and_one_for_all_in_real_time():
    assert len(FOUND) == 10
    assert "alerts.real-time" in FOUND


@pytest.mark.parametrize("requirement", sorted(FOUND))
def test_a_life_as_it_is_to_be_holds(requirement):
    verdict = FOUND[requirement]({"life": life()})

    assert verdict.outcome == "held", verdict.text()


@pytest.mark.parametrize("requirement", sorted(FOUND))
def test_a_pod_that_restarted_meanwhile_leaves_it_open(requirement):
    changed = life()
    changed["after"]["pods"]["u"]["restarts"] = 1

    assert FOUND[requirement]({"life": changed}).outcome == "inconclusive"


@pytest.mark.parametrize("requirement", sorted(set(FOUND) - {"alerts.no-traffic"}))
def test_calls_that_were_not_answered_as_declared_leave_it_open(requirement):
    changed = life()
    for name in (LOUD, QUIET):
        changed[name]["stimulus"][0]["statuses"] = {"0": 1}

    assert FOUND[requirement]({"life": changed}).outcome == "inconclusive"


def without(changed, *, inbox, status, alert=ALERT):
    changed["notifications"] = [
        each for each in changed["notifications"] if not (each["inbox"] == inbox and each["status"] == status and alert in {carried_one["labels"]["alertname"] for carried_one in each["alerts"]})
    ]


def never_fires(changed):
    for name in ALERTS:
        changed[LOUD]["alerts"][name] = {alerts.PENDING: [], FIRING: []}


def fires_late(changed):
    stamps = changed[LOUD]["alerts"][ALERT]
    moved = stamps[FIRING][:5]
    changed[LOUD]["alerts"][ALERT] = {alerts.PENDING: stamps[alerts.PENDING] + moved, FIRING: stamps[FIRING][5:]}


def twice(changed):
    changed["notifications"].append(came(15.0, STEADY, ALERT, GROUPED))


def ungrouped(changed):
    without(changed, inbox=STEADY, status=FIRING)
    changed["notifications"] += [came(13.2, STEADY, ALERT), came(13.2, STEADY, GROUPED)]


def all_in_one(changed):
    changed["notifications"] = [came(13.2, STEADY, ALERT, GROUPED, CRITICAL)]


def unresolved(changed):
    without(changed, inbox=STEADY, status=RESOLVED)


def leaks(changed):
    changed["notifications"].append(came(14.0, STEADY, SILENCED))


def unsilenced(changed):
    changed["alertmanager"][0]["alerts"][SILENCED] = {"state": "active", "silenced_by": []}


def stays_silent(changed):
    without(changed, inbox=STEADY, status=FIRING, alert=SILENCED)


def never_retried(changed):
    changed["notifications"] = [each for each in changed["notifications"] if each["inbox"] != SHAKY or each["refused"]]


def never_out(changed):
    changed["notifications"] = [each for each in changed["notifications"] if not each["refused"]]


def alarms_at_four(changed):
    changed[QUIET]["alerts"][ALERT][alerts.PENDING].append(BEGAN + 40)


def fires_while_flapping(changed):
    changed[QUIET]["alerts"][ALERT] = {alerts.PENDING: [], FIRING: [BEGAN + 9]}


def alarms_for_nobody(changed):
    changed[LOUD]["alerts"][ALERT][alerts.PENDING].append(BEGAN - 1)
    changed[QUIET]["alerts"][ALERT][alerts.PENDING].append(BEGAN - 1)


def cries_wolf(changed):
    wolf = came(30, STEADY, ALERT)
    wolf["alerts"][0]["labels"]["prometheus"] = SOURCES[QUIET]
    changed["notifications"].append(wolf)


def another_share(changed):
    changed[LOUD]["points"] = [[at, 10.0 if value == 20.0 else value] for at, value in changed[LOUD]["points"]]


@pytest.mark.parametrize(
    ("requirement", "change", "claim"),
    [
        ("alerts.high-function-error-rate", never_fires, "state-is-the-expected-one-at-every-evaluation"),
        ("alerts.high-function-error-rate", never_fires, "pending-in-time"),
        ("alerts.high-function-error-rate", never_fires, "inactive-in-time"),
        ("alerts.high-function-error-rate", fires_late, "fires-after-for"),
        ("alerts.high-function-error-rate", another_share, "expression-is-the-share-that-was-made"),
        ("alerts.delivery", twice, "delivered-once-in-time"),
        ("alerts.delivery", lambda changed: without(changed, inbox=STEADY, status=FIRING), "delivered-once-in-time"),
        ("alerts.grouping", ungrouped, "firing-alerts-of-a-group-come-together"),
        ("alerts.grouping", all_in_one, "another-group-comes-apart"),
        ("alerts.resolution", unresolved, "resolved-once-in-time"),
        ("alerts.silence", leaks, "nothing-comes-while-silenced"),
        ("alerts.silence", unsilenced, "alertmanager-has-it-silenced"),
        ("alerts.silence", stays_silent, "comes-when-the-silence-ends"),
        ("alerts.receiver-outage", never_retried, "arrives-once-when-the-receiver-is-back"),
        ("alerts.receiver-outage", never_out, "refused-at-first"),
        ("alerts.below-threshold", alarms_at_four, "inactive-at-four-per-cent"),
        ("alerts.below-threshold", cries_wolf, "nothing-of-it-comes"),
        ("alerts.flapping", fires_while_flapping, "pending-and-never-firing"),
        ("alerts.no-traffic", alarms_for_nobody, "inactive-without-traffic"),
        ("alerts.no-traffic", never_fires, "its-twin-fires"),
    ],
)
def test_a_departure_is_found_by_the_claim_that_is_about_it_and_in_real_time_too(requirement, change, claim):
    changed = life()

    change(changed)

    assert claim in refuted(requirement, changed)
    assert claim == "its-twin-fires" or claim in refuted("alerts.real-time", changed)


@pytest.mark.parametrize(("late_s", "held"), [(0.3, False), (1.4, None)])
def test_another_share_is_not_held_against_the_rule_where_the_calls_were_late(late_s, held):
    changed = life()
    another_share(changed)
    changed[LOUD]["stimulus"][0]["late_s"] = late_s

    claims = {claim.name: claim.held for claim in FOUND["alerts.high-function-error-rate"]({"life": changed}).claims}

    assert claims["expression-is-the-share-that-was-made"] is held
