import xml.etree.ElementTree as ET
from html.parser import HTMLParser

from example_run import a_run, an_entry

from kernelevolve.cli import report
from kernelevolve.cli.curve import draw
from kernelevolve.cli.summary import Certification
from kernelevolve.cli.waste import waste_of
from kernelevolve.schema import BaselineTime, Refused
from kernelevolve.testing.records import a_calibration, a_candidate, a_failed, a_passed, a_target

NOT_ASKED = Certification("none")


def write(run, certification):
    return report.write(run, certification, waste_of(run, ()))


class Outside(HTMLParser):
    """Collects whatever a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href")]


def test_the_page_holds_everything_it_needs():
    page = write(a_run(), NOT_ASKED).html
    outside = Outside()
    outside.feed(page)
    assert outside.found == []
    assert "<script" not in page
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page


def test_the_headline_is_the_confirmed_figure_with_its_interval():
    page = write(a_run(), NOT_ASKED)
    for text in (page.html, page.markdown):
        assert "double on test-cpu-2c: 1.50x [1.47, 1.53] over the fastest baseline, not certified" in text


def test_why_a_baseline_fails_is_told_without_where_things_lie_on_this_machine():
    raised = BaselineTime(baseline="compiled", median_us=None, problem="in /home/me/judge/baselines.py, line 44: no")
    run = a_run(calibration=a_calibration(times={"n1024": (raised,)}))
    page = write(run, NOT_ASKED)
    for text in (page.html, page.markdown):
        assert "in baselines.py, line 44: no" in text
        assert "/home/me" not in text


def test_losses_of_the_certification_are_marked():
    run = a_run()
    certified = Certification.of(an_entry(run.spec.run, run.steps[2].candidate))
    page = write(run, certified)
    assert 'class="slower"' in page.html
    assert "| n2048 | 16.7 | eager | 15.0 | 0.90x | [0.88, 0.92] |  | **slower** |" in page.markdown
    assert "certified" in page.markdown.splitlines()[0]


def test_a_refusal_says_why():
    refused = Refused(
        candidate=a_candidate().digest,
        reason="no_win",
        message="slower on n2048",
        evaluation=a_passed(speedup=0.9),
    )
    page = write(a_run(), Certification.of(refused))
    assert "refused by certification" in page.markdown
    assert "slower on n2048" in page.html


def test_the_diff_shows_what_tuning_changed_and_the_source_has_it_substituted():
    page = write(a_run(), NOT_ASKED).markdown
    assert "-#define BLOCK 8" in page
    assert "+#define BLOCK 16" in page
    assert "start += BLOCK" in page


def test_failures_and_tried_candidates_are_listed():
    page = write(a_run(), NOT_ASKED).markdown
    assert "| build | compile | 1 | expected ';' before '}' |" in page
    assert "| 3 | retune | main.cpp BLOCK=32 | 1.20x [1.18, 1.22], confirmed |" in page


def test_how_to_run_it_again_is_the_exact_command():
    page = write(a_run(), NOT_ASKED)
    assert "kernelevolve search double --evals 10 --seed 0" in page.html
    assert "kernelevolve search double --evals 10 --seed 0" in page.markdown


def test_a_run_in_which_nothing_passed_still_has_a_report():
    run = a_run()
    failed = run.model_copy(update={"steps": run.steps[1:2]})
    page = write(failed, NOT_ASKED)
    assert "no candidate passed" in page.markdown
    assert "no candidate passed" in page.html
    assert "The winning source" not in page.html


def test_a_run_without_a_step_still_has_a_report():
    page = write(a_run(steps=(), calibration=None), NOT_ASKED)
    assert "no candidate passed" in page.html
    assert "<svg" not in page.html


def test_text_from_candidates_cannot_become_markup():
    hostile = a_candidate(files={"main.cpp": "// <script>alert(1)</script>\n"})
    run = a_run()
    steps = (run.steps[2].model_copy(update={"candidate": hostile, "evaluation": a_passed(hostile, 2.0)}),)
    failed = a_failed(stage="load", diagnostics=({"kind": "raised", "message": "<b>&</b>", "advice": "a"},))
    steps += (run.steps[1].model_copy(update={"evaluation": failed}),)
    target = a_target(summary="<i>twice</i>")
    spec = run.spec.model_copy(update={"target": target})
    page = write(run.model_copy(update={"steps": steps, "spec": spec}), NOT_ASKED).html
    assert "<script>" not in page
    assert "<b>&</b>" not in page
    assert "<i>twice</i>" not in page


def test_the_curve_has_a_mark_for_every_evaluation():
    figure = ET.fromstring(draw(a_run()))
    space = "{http://www.w3.org/2000/svg}"
    classes = [child.get("class") for child in figure.iter() if child.get("class")]
    assert classes.count("tried") == 3
    assert classes.count("failed") == 1
    assert classes.count("band") == classes.count("best") == classes.count("baseline") == 1
    assert len(figure.findall(f"{space}polyline")) == 1


def test_the_curve_never_falls_below_an_earlier_confirmed_best():
    figure = ET.fromstring(draw(a_run()))
    (line,) = figure.findall("{http://www.w3.org/2000/svg}polyline")
    heights = [float(point.split(",")[1]) for point in line.get("points").split()]
    assert heights == sorted(heights, reverse=True)
