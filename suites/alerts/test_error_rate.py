"""The reference's alert on failing functions, judged by its whole life: what it was at every evaluation, and whom it reached when.

Finding: between evaluations an alert is in no state that anybody could see, so what a timetable may be compared with is what Prometheus itself
writes down at each of them; a look now and then would need bounds as wide as the states are long.
"""

from collections.abc import Callable

import pytest

from suites.support import alert_life, alerts
from suites.support.alert_life import ALERT, BEFORE, CRITICAL, GROUPED, LOUD, QUIET, REFUSED, SHAKY, SILENCED, STEADY, THRESHOLD, Life
from suites.support.alerts import FIRING, PENDING, REFERENCE, RESOLVED, SLACK_S, Times
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict

# Every time of the rule, of scrapes and of the route by one factor: five minutes become ten seconds.
FACTOR = 30
SCALED = REFERENCE.scaled(FACTOR)
ANNOTATIONS = {"summary": "High function error rate", "description": "More than 5 % of all invocations fail: 20 %."}


def judged(*claims: Callable[[Evidence, Times], Claim]) -> Callable[[Evidence], Verdict]:
    """Return the judge of one fact: the world as it was while the life was recorded, and these claims by the times that it was recorded with."""
    def judge(evidence: Evidence) -> Verdict:
        life = evidence["life"]
        times = Times(**life["times"])
        return Verdict.of(alerts.undisturbed("the-life-was-undisturbed", life["before"], life["after"]), *(claim(life, times) for claim in claims))

    return judge


# What was asked for, and when


def span(life: Evidence, name: str, *, failing: bool, skip: int = 0) -> tuple[float, float]:
    """Return when the first and the last of a function's failing (or other) calls were made, without those of the first `skip` draws."""
    stretch = [one for one in life[name]["stimulus"][skip:] if one["failing"] == failing]
    return min(one["first"] for one in stretch), max(one["last"] for one in stretch)


def answered(life: Evidence, name: str) -> Claim:
    """Claim that every call of a function was answered as it was to be: what the alert is about is what was made."""
    wrong = [one for one in life[name]["stimulus"] if one["statuses"] != {"500" if one["failing"] else "200": one["count"]}]
    calls = sum(one["count"] for one in life[name]["stimulus"])
    if wrong:
        return Claim(f"{name}-was-called-as-declared", None, f"of {wrong[0]['count']} calls {wrong[0]['statuses']} were answered")
    return Claim(f"{name}-was-called-as-declared", held=True, said=f"{calls} calls were answered as they were to be")


def seen(life: Evidence, name: str, alert: str, state: str, *, after: float | None = None) -> float | None:
    """Return the evaluation at which an alert was first in a state, after a time."""
    points = alerts.points_of(life[name])
    return alerts.first(points, alerts.seen_states(points, life[name]["alerts"][alert]), state, after=after if after is not None else life["began"])


def ended(life: Evidence, alert: str) -> float | None:
    """Return the evaluation at which an alert that had fired was inactive again."""
    fired = seen(life, LOUD, alert, FIRING)
    return None if fired is None else seen(life, LOUD, alert, alerts.INACTIVE, after=fired)


# The loud function's alert


def loud_called(life: Evidence, _: Times) -> Claim:
    """The loud function was called as declared."""
    return answered(life, LOUD)


def follows(life: Evidence, times: Times) -> Claim:
    """At every evaluation the alert was what the expression and `for` make of it."""
    return alerts.follows("state-is-the-expected-one-at-every-evaluation", alerts.points_of(life[LOUD]), life[LOUD]["alerts"][ALERT], threshold=THRESHOLD, hold=times.hold, least=30)


def pending(life: Evidence, times: Times) -> Claim:
    """Pending by the second scrape and the evaluation after it: a rate needs two."""
    since, _ = span(life, LOUD, failing=True)
    return alerts.reached("pending-in-time", seen(life, LOUD, ALERT, PENDING), since=since, within=(0.0, 2 * times.scrape + times.evaluation + SLACK_S), what="from the first failure to pending")


def firing(life: Evidence, times: Times) -> Claim:
    """Firing at the first evaluation that is `for` after pending."""
    since = seen(life, LOUD, ALERT, PENDING)
    name, what = "fires-after-for", "from pending to firing"
    if since is None:
        return Claim(name, held=False, said="it was never pending", expected=FIRING, got=alerts.INACTIVE)
    return alerts.reached(name, seen(life, LOUD, ALERT, FIRING), since=since, within=(times.hold, times.hold + times.evaluation + SLACK_S), what=what)


def inactive(life: Evidence, times: Times) -> Claim:
    """Inactive again once the failures have left the window so far that their share is below the threshold: at the latest when none is in it."""
    _, until = span(life, LOUD, failing=True)
    return alerts.reached("inactive-in-time", ended(life, ALERT), since=until, within=(0.0, times.window + 2 * times.scrape + times.evaluation + SLACK_S), what="from the last failure to inactive")


def share(life: Evidence, times: Times) -> Claim:
    """While a whole window of both kinds of calls is behind it, the expression is the share that was made: a fifth, by a tenth of it more or less.

    So much is a second's calls of either kind. Where some were answered later than that, another share may have been made.
    """
    began, until = span(life, LOUD, failing=True)
    low, high = began + times.window + 2 * times.scrape, until - times.scrape
    inside = [value for at, value in alerts.points_of(life[LOUD]) if low <= at <= high]
    name, bounds = "expression-is-the-share-that-was-made", (20.0 * 0.9, 20.0 * 1.1)
    off = [value for value in inside if value is None or not bounds[0] <= value <= bounds[1]]
    late_s = max(one.get("late_s", 0.0) for one in life[LOUD]["stimulus"])
    if off and late_s > times.scrape:
        return Claim(name, held=None, said=f"{len(off)} of {len(inside)} evaluations differ, but calls were up to {late_s:.1f} s late")
    if off:
        return Claim(name, held=False, said=f"{len(off)} of {len(inside)} evaluations differ", expected=f"{bounds[0]:g} to {bounds[1]:g}", got=str(off[0]))
    if len(inside) < BEFORE:
        return Claim(name, held=None, said=f"{len(inside)} evaluations with a whole window behind them, {BEFORE} are needed")
    return Claim(name, held=True, said=f"{min(inside):.2f} to {max(inside):.2f} at {len(inside)} evaluations, 20 was made")


# Its news


def came(life: Evidence, times: Times) -> Claim:
    """Delivered once, a group wait after it fired."""
    return alerts.delivered(
        "delivered-once-in-time", life["notifications"], inbox=STEADY, alert=ALERT, source=life["sources"][LOUD], status=FIRING,
        since=seen(life, LOUD, ALERT, FIRING), within=(times.group_wait, times.group_wait + SLACK_S),
    )


def words(life: Evidence, _: Times) -> Claim:
    """Delivered with the rule's labels and annotations, and the name of the Prometheus that sent it."""
    return alerts.worded(
        "labels-and-annotations-are-the-rule-s", life["notifications"], inbox=STEADY, alert=ALERT, source=life["sources"][LOUD],
        labels={"alertname": ALERT, "severity": "warning", "prometheus": life["sources"][LOUD]}, annotations=ANNOTATIONS,
    )


def together(status: str) -> Callable[[Evidence, Times], Claim]:
    """Two alerts of one severity come in one notification, without the one of another severity."""
    def claim(life: Evidence, _: Times) -> Claim:
        return alerts.grouped(f"{status}-alerts-of-a-group-come-together", life["notifications"], inbox=STEADY, together=(ALERT, GROUPED), source=life["sources"][LOUD], status=status)

    return claim


def apart(life: Evidence, _: Times) -> Claim:
    """The alert of another severity comes in a notification of its own."""
    return alerts.grouped("another-group-comes-apart", [one for one in life["notifications"] if not one["refused"]], inbox=SHAKY, together=(CRITICAL,), source=life["sources"][LOUD], status=FIRING)


def resolved(life: Evidence, times: Times) -> Claim:
    """Delivered as resolved once, at the group's next turn after it ended."""
    return alerts.delivered(
        "resolved-once-in-time", life["notifications"], inbox=STEADY, alert=ALERT, source=life["sources"][LOUD], status=RESOLVED,
        since=ended(life, ALERT), within=(0.0, times.group_interval + SLACK_S),
    )


# The silence


def suppressed(life: Evidence, _: Times) -> Claim:
    """While it fires the Alertmanager has it as silenced by the silence that was made, and its twin as active."""
    states = [look["alerts"] for look in life["alertmanager"] if SILENCED in look["alerts"] and (life["silence"]["expired_at"] is None or look["at"] < life["silence"]["expired_at"])]
    # What has just come is in no state until its group is looked after.
    told = [one for one in states if one[SILENCED]["state"] != "unprocessed"]
    name = "alertmanager-has-it-silenced"
    if not told:
        return Claim(name, held=None, said="the Alertmanager never had it")
    wrong = [one[SILENCED] for one in told if one[SILENCED] != {"state": "suppressed", "silenced_by": [life["silence"]["id"]]}]
    if wrong:
        return Claim(name, held=False, said=f"it was {wrong[0]['state']} by {wrong[0]['silenced_by'] or 'no silence'}", expected="suppressed by the silence that was made", got=str(wrong[0]))
    return Claim(name, held=True, said=f"suppressed at {len(told)} looks, {ALERT} {told[-1].get(ALERT, {}).get('state', 'absent')}")


def held_back(life: Evidence, _: Times) -> Claim:
    """Nothing of it comes while the silence lasts, although it fires."""
    expired = life["silence"]["expired_at"]
    name = "nothing-comes-while-silenced"
    fired = seen(life, LOUD, SILENCED, FIRING)
    if fired is None or expired is None or expired <= fired:
        return Claim(name, held=None, said="it did not fire while it was silenced")
    return alerts.absent(name, life["notifications"], alert=SILENCED, between=(life["began"], expired))


def released(life: Evidence, times: Times) -> Claim:
    """It comes at its group's next turn once the silence has ended: nothing else held it back."""
    return alerts.delivered(
        "comes-when-the-silence-ends", life["notifications"], inbox=STEADY, alert=SILENCED, source=life["sources"][LOUD], status=FIRING,
        since=life["silence"]["expired_at"], within=(0.0, times.group_interval / 5 + SLACK_S),
    )


# The receiver that is out of order


def refused(life: Evidence, _: Times) -> Claim:
    """The receiver refused it at first."""
    found = [one for one in alerts.carrying(life["notifications"], inbox=SHAKY, alert=CRITICAL, source=life["sources"][LOUD], status=FIRING) if one["refused"]]
    name = "refused-at-first"
    if len(found) < REFUSED:
        return Claim(name, held=False, said=f"it came {len(found)} times while the receiver was out of order", expected=f"at least {REFUSED} times", got=str(len(found)))
    return Claim(name, held=True, said=f"refused {len(found)} times within {found[-1]['at'] - found[0]['at']:.1f} s")


def arrived(life: Evidence, times: Times) -> Claim:
    """It arrives once when the receiver is back: the Alertmanager tries again, at the latest at the group's next turn."""
    return alerts.delivered(
        "arrives-once-when-the-receiver-is-back", life["notifications"], inbox=SHAKY, alert=CRITICAL, source=life["sources"][LOUD], status=FIRING,
        since=life["accepted_at"], within=(-SLACK_S, times.group_interval + SLACK_S),
    )


# What stays quiet


def quiet_called(life: Evidence, _: Times) -> Claim:
    """The quiet function was called as declared."""
    return answered(life, QUIET)


def flapping(life: Evidence, times: Times) -> Claim:
    """Three times above the threshold, each time for less than `for`: pending, never firing."""
    began = min(one["first"] for one in life[QUIET]["stimulus"])
    until = life[QUIET]["stimulus"][len(alert_life.FLAPPING) - 1]["last"]
    return alerts.flapped("pending-and-never-firing", alerts.points_of(life[QUIET]), life[QUIET]["alerts"][ALERT], threshold=THRESHOLD, hold=times.hold, between=(began, until), least=3)


def below(life: Evidence, times: Times) -> Claim:
    """Four per cent, for longer than `for` with a whole window behind it: inactive at every evaluation."""
    began, until = span(life, QUIET, failing=True, skip=len(alert_life.FLAPPING))
    return alerts.stays(
        "inactive-at-four-per-cent", alerts.points_of(life[QUIET]), life[QUIET]["alerts"][ALERT],
        between=(began + times.window + 2 * times.scrape, until), bounds=(3.2, 4.8), least=int(times.hold / times.evaluation),
    )


def nobody(life: Evidence, _: Times) -> Claim:
    """Without a call the expression is 0/0, which is above nothing: inactive at every evaluation."""
    ends = [(name, min(one["first"] for one in life[name]["stimulus"])) for name in (LOUD, QUIET)]
    name, until = max(ends, key=lambda end: end[1])
    return alerts.stays("inactive-without-traffic", alerts.points_of(life[name]), life[name]["alerts"][ALERT], between=(0.0, until), bounds=None, least=BEFORE)


def none_came(life: Evidence, _: Times) -> Claim:
    """Nothing of the quiet function's alerts came to anybody, while the loud one's did."""
    return alerts.absent("nothing-of-it-comes", life["notifications"], source=life["sources"][QUIET])


def loud_came(life: Evidence, _: Times) -> Claim:
    """The control: the same rule of the same file alarmed for the function beside it."""
    fired = seen(life, LOUD, ALERT, FIRING)
    return Claim("its-twin-fires", fired is not None, "the loud function's alert fired" if fired is not None else "the loud function's alert never fired")


EVERYTHING = (
    loud_called, quiet_called, nobody, follows, share, pending, firing, inactive, came, words, together(FIRING), apart, together(RESOLVED), resolved,
    suppressed, held_back, released, refused, arrived, flapping, below, none_came,
)


# One recording of about a minute serves all of them; whichever comes first takes it.
@pytest.mark.slow
@requirement("alerts.high-function-error-rate", level="MUST", judge=judged(loud_called, share, follows, pending, firing, inactive))
def test_the_alert_lives_as_its_rule_says(life: Life, decide: Decide) -> None:
    """Where a fifth of all calls fails, the reference's alert is pending, fires after its `for`, and ends when the failures have left its window, as its expression has it at every evaluation."""
    decide(life=life(SCALED))


@pytest.mark.slow
@requirement("alerts.delivery", level="MUST", judge=judged(loud_called, came, words))
def test_an_alert_that_fires_is_delivered_once(life: Life, decide: Decide) -> None:
    """An alert that fires comes to its receiver exactly once, a group wait later, with the labels and annotations of its rule."""
    decide(life=life(SCALED))


@pytest.mark.slow
@requirement("alerts.grouping", level="MUST", judge=judged(loud_called, together(FIRING), apart))
def test_alerts_of_a_group_come_together(life: Life, decide: Decide) -> None:
    """Alerts that have the labels of their route's group in common come in one notification, and another one in its own."""
    decide(life=life(SCALED))


@pytest.mark.slow
@requirement("alerts.resolution", level="MUST", judge=judged(loud_called, resolved, together(RESOLVED)))
def test_the_end_of_an_alert_is_delivered(life: Life, decide: Decide) -> None:
    """An alert that ended comes as resolved exactly once, at its group's next turn."""
    decide(life=life(SCALED))


@pytest.mark.slow
@requirement("alerts.silence", level="MUST", judge=judged(loud_called, suppressed, held_back, released))
def test_a_silence_holds_back_what_it_matches(life: Life, decide: Decide) -> None:
    """An alert that a silence matches fires and does not come, its twins do, and it comes when the silence ends."""
    decide(life=life(SCALED))


@pytest.mark.slow
@requirement("alerts.receiver-outage", level="MUST", judge=judged(loud_called, refused, arrived))
def test_an_alert_outlasts_its_receiver_s_outage(life: Life, decide: Decide) -> None:
    """An alert whose receiver is out of order when it comes is sent again, and arrives once when the receiver is back."""
    decide(life=life(SCALED))


@pytest.mark.slow
@requirement("alerts.below-threshold", level="MUST", judge=judged(quiet_called, below, none_came, loud_came))
def test_four_per_cent_stay_quiet(life: Life, decide: Decide) -> None:
    """Where four of a hundred calls fail for longer than window and `for` together, the alert is inactive throughout and nothing comes."""
    decide(life=life(SCALED))


@pytest.mark.slow
@requirement("alerts.flapping", level="MUST", judge=judged(quiet_called, flapping, none_came, loud_came))
def test_what_is_over_before_its_for_stays_quiet(life: Life, decide: Decide) -> None:
    """A share above the threshold three times, each time for less than `for` and together for longer, is pending each time and never fires."""
    decide(life=life(SCALED))


@pytest.mark.slow
@requirement("alerts.no-traffic", level="MUST", judge=judged(nobody, loud_came))
def test_no_traffic_is_no_alarm(life: Life, decide: Decide) -> None:
    """Without any call the alert is inactive.

    Finding: the expression is then 0/0, which is NaN and not above the threshold; that nobody is served raises no alarm either.
    """
    decide(life=life(SCALED))


# Twenty-five minutes: a window and a `for` of five minutes each, twice over, and a group interval of as much.
@pytest.mark.nightly
@requirement("alerts.real-time", level="MUST", judge=judged(*EVERYTHING))
def test_the_alert_lives_the_same_in_real_time(life: Life, decide: Decide) -> None:
    """By the reference's own times, unscaled, the alert lives, comes, is grouped, silenced and resolved, and stays quiet as it does by scaled ones."""
    decide(life=life(REFERENCE))
