"""The trainings behind each table: what they are, and each done once."""

from dataclasses import replace

import pytest
import replicas
import torch
from invented import Reader, result, turning

import ciper.data.turntable as turntable
from ciper import AugmentedViews, Encoder, ImageData, load
from ciper.data import datasets
from ciper.data.datasets import object_masks
from ciper.reproduce import plans
from ciper.reproduce.plans import (
    ALPHAS,
    DATA,
    OPERATIONS,
    PHOTOGRAPHS,
    ROWS,
    STAND_IN,
    Job,
    check_place,
    data_name,
    data_of,
    finished,
    finished_at,
    images_of,
    is_done,
    jobs_of,
    look_inside,
    measure,
    neighbor_count,
    neighbors_watch,
    paper_scales,
    place_of,
    plan,
    result_path,
    saliency_scores,
    trained,
    work,
)
from ciper.reproduce.results import load_result, save_result
from ciper.reproduce.sweep import sweep
from ciper.training.trainer import OutOfTime, load_run, recipe_at

SCALES = "smoke", "laptop", "paper"


@pytest.fixture
def job():
    """A training of a second, on digits."""
    return plan("table 3", "smoke", [0], ["digits"])[1]


@pytest.fixture
def rooms():
    data = load("turntable-rooms", 16, "test", progress=False)
    return data.sample(12)


def no_training(*_, **__):
    raise AssertionError("nothing should be trained")


def weights(run):
    return torch.cat([p.flatten() for p in run.encoder.parameters()])


# what is trained


@pytest.mark.parametrize(
    ("item", "labels"),
    [
        (
            "table 2",
            "pixels random simclr-image ciper-image simclr-dataset "
            "predictive-dataset ciper-dataset ciper-dataset-target=circular",
        ),
        (
            "table 3",
            "random simclr-image predictive-image ciper-image essl-image "
            "ciper-image-preset=simclr",
        ),
        ("figure 2", "simclr-dataset ciper-dataset"),
        ("figure 3", "simclr-dataset ciper-dataset"),
        (
            "figure 4a",
            "ciper-image ciper-image-without=crop ciper-image-without=flip "
            "ciper-image-without=jitter ciper-image-without=grayscale",
        ),
        ("precision", "ciper-dataset ciper-dataset-precision=float32"),
        (
            "figure 4b",
            "ciper-dataset-alpha=0 ciper-dataset-alpha=0.1 "
            "ciper-dataset-alpha=0.3 ciper-dataset ciper-dataset-alpha=3 "
            "ciper-dataset-alpha=10 "
            "ciper-dataset-alpha=10-precision=float32",
        ),
        ("next", "simclr-next ciper-next"),
    ],
)
def test_the_rows_of_each_table_and_figure_have_their_labels(item, labels):
    jobs = jobs_of("turntable", "laptop", [4], ROWS[item])
    assert [job.label for job in jobs] == labels.split()
    names = [f"turntable/laptop/{label}-4" for label in labels.split()]
    assert [job.name for job in jobs] == names


def test_the_address_of_a_result_is_the_name_of_the_job(tmp_path):
    for item in ROWS:
        for job in plan(item, "smoke", [0, 3]):
            saved = save_result(result(job, accuracy=0.5), tmp_path)
            assert saved == result_path(job, tmp_path)
            assert saved == tmp_path / f"{job.name}.json"


@pytest.mark.parametrize(
    ("data", "folder"),
    [
        ("digits", "digits"),
        ("folder:/data/photos", "photos"),
        ("folder:/data/photos/", "photos"),
        ("folder:/data/old/../my photos", "my-photos"),
        ("folder:/data/.[b]\x1b\udcff\n_", "b"),
        ("folder:/data/写真 1", "写真-1"),
        ("folder:/data/photos.zip", "photos.zip"),
        ("hf:someone/flowers", "flowers"),
        ("core50:usual", "core50-usual"),
    ],
)
def test_results_are_filed_under_the_name_of_the_data(data, folder):
    recipe = recipe_at("smoke", data=data)
    assert Job(recipe, "smoke").name == f"{folder}/smoke/ciper-image-0"


def test_a_folder_is_filed_under_the_name_it_has(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    assert data_name("folder:.") == data_name("folder:../photos") == "photos"


@pytest.mark.parametrize("data", ["folder:/", "folder:/data/...", "", ":x"])
def test_data_without_a_name_are_refused(data):
    with pytest.raises(ValueError, match="need a name to file results by"):
        data_name(data)


def test_a_preset_is_part_of_the_label():
    recipe = recipe_at("smoke", preset="simclr", method="simclr")
    label = Job(recipe, "smoke").label
    assert label == "simclr-image-preset=simclr"


def test_every_seed_and_data_set_has_every_row():
    jobs = plan("table 2", "laptop", [5, 7])
    found = {(j.recipe.data, j.recipe.seed, j.label) for j in jobs}
    # eight rows on Turntable, seven on its rooms, and pixels have one seed
    assert len(found) == len(jobs) == 2 * (7 + 6) + 2
    assert {j.recipe.seed for j in jobs} == {5, 7}


def test_equal_settings_are_one_job_over_all_tables():
    jobs = [j for item in ROWS for j in plan(item, "laptop", [0])]
    # table 2: 15; table 3: 12 less 3 that turntable has in table 2;
    # figure 4a: 4 left out; figure 4b: 6 others on 2 data sets; next: 2
    assert len(jobs) == 15 + 12 + 2 + 2 + 2 + 5 + 14 + 2
    assert len(set(jobs)) == 15 + 9 + 0 + 0 + 1 + 4 + 12 + 2


@pytest.mark.parametrize("scale", SCALES)
def test_no_two_jobs_of_a_scale_share_a_name(scale):
    jobs = {j for item in ROWS for j in plan(item, scale, [0, 1])}
    assert len({job.name for job in jobs}) == len(jobs)


@pytest.mark.parametrize("scale", SCALES)
def test_neighbors_in_time_are_sought_among_all_images(scale):
    recipes = [job.recipe for job in plan("next", scale, [0])]
    assert {r.images for r in recipes} == {0}
    assert {r.views for r in recipes} == {"next"}


def test_the_baseline_in_time_is_no_result_of_the_papers_tables(tmp_path):
    jobs = plan("next", "laptop", [0])
    for job in jobs:
        save_result(result(job, accuracy=0.5), tmp_path)
    assert not finished_at("laptop", tmp_path)
    assert len(finished(jobs, tmp_path)) == 2


def test_the_ablations_are_those_of_figure_4():
    jobs = plan("figure 4b", seeds=[0])
    alphas = [j.recipe.alpha for j in jobs if not j.row]
    assert alphas == [*ALPHAS, *ALPHAS] == 2 * [0, 0.1, 0.3, 1, 3, 10]
    left_out = [job.recipe.without for job in plan("figure 4a", seeds=[0])]
    assert left_out == ["", *OPERATIONS]
    assert OPERATIONS == ("crop", "flip", "jitter", "grayscale")


# scales


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        ("cifar10", dict(epochs=800, batch_size=256, size=32)),
        ("core50", dict(epochs=100, batch_size=64)),
        ("tdw", dict(epochs=100, batch_size=64)),
    ],
)
def test_the_paper_scale_has_the_settings_of_section_4_1(data, settings):
    common = dict(
        backbone="resnet18",
        stem="small",
        width=1.0,
        coordinates=True,
        projector_width=2048,
        predictor_width=512,
        learning_rate=0.03,
        momentum=0.9,
        weight_decay=5e-4,
        images=0,
    )
    items = [item for item in ROWS if data in DATA[item]]
    jobs = [j for item in items for j in plan(item, "paper", [0])]
    recipes = [j.recipe for j in jobs if j.experiment == data]
    assert recipes
    for name, value in (common | settings).items():
        assert {getattr(r, name) for r in recipes} == {value}, name
    other = {job.label for job in jobs if job.recipe.preset != "paper"}
    assert other <= {"ciper-image-preset=simclr"}


@pytest.mark.parametrize(
    ("item", "papers", "stand_ins"),
    [
        ("table 2", "core50 tdw", "turntable-rooms turntable"),
        ("table 3", "cifar10", "digits turntable"),
        ("figure 2", "tdw", "turntable"),
        ("figure 3", "core50", "turntable-rooms"),
        ("figure 4a", "cifar10", "turntable"),
        ("figure 4b", "core50 tdw", "turntable-rooms turntable"),
        ("next", "core50 tdw", "turntable"),
    ],
)
def test_embedded_data_stand_in_for_the_papers(item, papers, stand_ins):
    assert data_of(item, "paper") == tuple(papers.split())
    assert data_of(item, "laptop") == tuple(stand_ins.split())
    assert data_of(item, "smoke") == tuple(stand_ins.split())


def test_other_photographs_get_the_settings_of_photographs():
    (job, *_) = plan("table 3", "laptop", [0], ["cifar10-jpeg"])
    r = job.recipe
    assert (r.size, r.images, r.epochs, r.width) == (24, 20_000, 15, 0.25)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("data", ["digits", "core50"])
def test_a_number_after_the_scale_changes_the_epochs_alone(scale, data):
    jobs = plan("table 3", scale, [0, 1], [data])
    found = plan("table 3", f"{scale}-3", [0, 1], [data])
    assert [job.recipe for job in found] == [
        replace(job.recipe, epochs=3) for job in jobs
    ]
    assert {job.name.split("/")[1] for job in found} == {f"{scale}-3"}


def test_a_number_after_the_scale_leaves_the_data_and_test_images_alone():
    for item in ROWS:
        for scale in SCALES:
            assert data_of(item, f"{scale}-7") == data_of(item, scale)
    recipe = recipe_at("smoke-7", data="digits", size=16)
    assert len(plans.images_of(Job(recipe, "smoke-7"))[1]) == 256


def test_the_cost_is_what_is_encoded():
    jobs = plan("table 3", "laptop", [0], ["digits"])
    cost = {job.recipe.method: job.cost for job in jobs}
    unit = 30 * 1400 * 16**2  # epochs, images, pixels
    assert cost["simclr"] == 2 * unit
    assert cost["predictive"] == cost["ciper"] == 3 * unit
    assert cost["essl"] == (2 + 4 / 4) * unit  # four of a quarter the size
    assert cost["random"] == unit / 30  # embedded once


@pytest.mark.parametrize("scale", SCALES)
def test_a_sweep_accepts_the_cost_of_every_job(scale):
    jobs = [j for item in ROWS for j in plan(item, scale, [0])]
    count, made = len(set(jobs)), set()
    options = dict(cost=lambda j: j.cost, progress=False)
    report = sweep(jobs, made.add, made.__contains__, **options)
    assert len(report.finished) == count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table 1",), "unknown table or figure 'table 1': did you mean"),
        (("table 2", "labtop"), "unknown scale 'labtop': did you mean 'lap"),
        (("table 2", "laptop-x"), "a number of epochs, as in laptop-100"),
    ],
)
def test_an_unknown_plan_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan(*arguments)


# done or not


def test_a_job_is_done_once_its_result_is_there(job, tmp_path):
    assert not is_done(job, tmp_path)
    save_result(result(job, accuracy=0.5), tmp_path)
    assert is_done(job, tmp_path)
    assert not is_done(replace(job, scale="laptop"), tmp_path)


@pytest.mark.parametrize(
    "change", [{"epochs": 2}, {"learning_rate": 0.1}, {"width": 0.25}]
)
def test_a_result_with_other_settings_does_not_count(job, change, tmp_path):
    save_result(result(job, accuracy=0.5), tmp_path)
    other = replace(job, recipe=replace(job.recipe, **change))
    assert result_path(other, tmp_path) == result_path(job, tmp_path)
    assert not is_done(other, tmp_path)


@pytest.mark.parametrize("damage", ["half", "format", "foreign", "empty"])
def test_a_bad_result_file_is_named_and_does_not_count(job, damage, tmp_path):
    path = save_result(result(job, accuracy=0.5), tmp_path)
    text = path.read_text()
    if damage == "half":
        path.write_text(text[: len(text) // 2])
    elif damage == "format":
        path.write_text(text.replace('"format": 1', '"format": 2'))
    elif damage == "foreign":
        path.write_text(text.replace('"seed": 0', '"seed": 1'))
    else:
        path.write_text("")
    with pytest.warns(UserWarning, match=f"skipped .*{path.name}"):
        assert not is_done(job, tmp_path)
    with pytest.warns(UserWarning, match=path.name):
        assert finished([job], tmp_path) == []


def test_a_folder_elsewhere_is_done_however_its_path_is_written(
    job, tmp_path, monkeypatch
):
    monkeypatch.chdir("/usr")
    here, again, other = (
        replace(job, recipe=replace(job.recipe, data=f"folder:{path}"))
        for path in ("/a/photos", "../a/photos/", "/b/photos")
    )
    save_result(result(here, accuracy=0.5), tmp_path)
    assert is_done(here, tmp_path) and is_done(again, tmp_path)
    assert not is_done(other, tmp_path)
    assert "/a" not in result_path(here, tmp_path).read_text()


def test_two_folders_of_one_name_do_not_replace_each_others_results(
    job, tmp_path, monkeypatch
):
    monkeypatch.setattr(plans, "fit", no_training)
    here, other = (
        replace(job, recipe=replace(job.recipe, data=f"folder:{path}"))
        for path in ("a/photos", "b/photos")
    )
    path = save_result(result(here, accuracy=0.5), tmp_path)
    before = path.read_bytes()
    check_place(here, tmp_path)
    for refuse in (check_place, lambda *a: work(*a, tmp_path / "runs")):
        with pytest.raises(FileExistsError) as error:
            refuse(other, tmp_path)
        assert str(error.value).startswith(
            f"{path} is on folder:a/photos, and would be replaced by a "
            "result on folder:b/photos: give another folder"
        )
    assert path.read_bytes() == before


def test_finished_gives_each_result_once_and_only_of_the_jobs(tmp_path):
    jobs = plan("table 3", "smoke", [0, 1], ["digits"])
    for i, job in enumerate(jobs[:4]):
        save_result(result(job, accuracy=i / 10), tmp_path)
    found = finished(jobs[1:] + jobs[1:], tmp_path)
    assert [r.metrics["accuracy"] for r in found] == [0.1, 0.2, 0.3]


def test_all_results_of_a_scale_are_found_on_other_photographs_too(tmp_path):
    jobs = plan("table 2", "laptop", [0, 17]) + plan("figure 4b", seeds=[3])
    jobs += plan("figure 4a", "laptop", [1], ["cifar10"])
    jobs += plan("table 2", "laptop", [0], PHOTOGRAPHS)
    for job in {*jobs, *plan("table 2", "smoke", [0])}:
        save_result(result(job, accuracy=0.5), tmp_path)
    found = finished_at("laptop", tmp_path, ["cifar10"])
    assert len(found) == len({*jobs}) == 2 * 13 + 2 + 14 + 5 + 2 * 8
    usual = finished_at("laptop", tmp_path)
    assert {r.experiment for r in usual} == {*STAND_IN.values(), *PHOTOGRAPHS}


# working


def test_working_twice_trains_once(job, tmp_path, monkeypatch):
    folders = tmp_path / "results", tmp_path / "runs"
    work(job, *folders)
    found = load_result(result_path(job, folders[0]))
    assert found.metrics.keys() == {
        "linear_accuracy",
        "logistic_accuracy",
        "knn_accuracy",
        "knn_k",
        "contrastive_loss",
    }
    last = found.metrics["knn_accuracy"]
    assert found.knn_curve == [[1, pytest.approx(last)]]
    loss = found.metrics["contrastive_loss"]
    assert found.loss_curves == {"contrastive": [pytest.approx(loss)]}
    assert is_done(job, folders[0])
    monkeypatch.setattr(plans, "fit", no_training)
    monkeypatch.setattr(plans, "evaluate", no_training)
    work(job, *folders)


def test_a_training_that_diverges_is_a_result_and_is_not_repeated(
    job, tmp_path, monkeypatch
):
    def diverges(*_, **__):
        raise FloatingPointError("the contrastive loss is not finite")

    monkeypatch.setattr(plans, "fit", diverges)
    with pytest.warns(UserWarning, match="simclr-image-0 diverged"):
        work(job, tmp_path, tmp_path / "runs")
    found = load_result(result_path(job, tmp_path))
    assert found.metrics == {"diverged": 1.0} and is_done(job, tmp_path)


def test_the_splits_of_turntable_are_measured(tmp_path):
    (job,) = jobs_of("turntable", "smoke", [0], [dict(method="random")])
    work(job, tmp_path, tmp_path / "runs")
    metrics = load_result(result_path(job, tmp_path)).metrics
    assert {"change_error_deg", "blocks_azimuth_error_deg"} <= metrics.keys()
    (job,) = jobs_of(
        "turntable:objects", "smoke", [0], [dict(method="random")]
    )
    work(job, tmp_path, tmp_path / "runs")
    metrics = load_result(result_path(job, tmp_path)).metrics
    assert "change_error_deg" in metrics and "linear_accuracy" not in metrics
    assert job.experiment == "turntable-objects"


def test_a_run_of_another_numeric_version_is_trained_again(
    job, tmp_path, monkeypatch
):
    trained(job, tmp_path)
    monkeypatch.setattr(plans, "NUMERIC_VERSION", 99)
    monkeypatch.setattr("ciper.training.trainer.NUMERIC_VERSION", 99)
    with pytest.raises(AssertionError):
        monkeypatch.setattr(plans, "fit", no_training)
        trained(job, tmp_path)


@pytest.mark.parametrize(
    ("asked", "used", "done"),
    [("auto", "bfloat16", True), ("bfloat16", "bfloat16", True),
     ("float32", "bfloat16", False)],
)  # fmt: skip
def test_a_precision_asked_for_must_be_the_one_used(
    asked, used, done, tmp_path
):
    (job,) = jobs_of("digits", "smoke", [0], [dict(method="simclr")])
    job = replace(job, recipe=replace(job.recipe, precision=asked))
    made = replace(result(job), provenance={"precision": used})
    made.settings["precision"] = "auto"
    save_result(made, tmp_path)
    assert is_done(job, tmp_path) == done


def test_an_older_result_counts_as_the_precision_of_its_scale(tmp_path):
    (job,) = jobs_of("digits", "laptop", [0], [dict(method="simclr")])
    old = result(job)
    old.settings["precision"] = "auto"
    save_result(old, tmp_path)
    assert job.recipe.precision == "float32" and is_done(job, tmp_path)
    half = replace(job, recipe=replace(job.recipe, precision="bfloat16"))
    assert not is_done(half, tmp_path)


def test_older_results_with_dataset_views_had_the_circular_target(tmp_path):
    rows = [dict(views="dataset"), dict(views="dataset", target="circular")]
    raw, circular = jobs_of("turntable", "smoke", [0], rows)
    for job in (raw, circular):
        old = result(job)
        del old.settings["target"]
        save_result(old, tmp_path)
    assert not is_done(raw, tmp_path) and is_done(circular, tmp_path)


def test_a_lost_result_is_measured_again_without_training(
    job, tmp_path, monkeypatch
):
    folders = tmp_path / "results", tmp_path / "runs"
    work(job, *folders)
    path = result_path(job, folders[0])
    first = load_result(path)
    path.unlink()
    monkeypatch.setattr(plans, "fit", no_training)
    work(job, *folders)
    assert load_result(path).metrics == first.metrics


def test_a_killed_training_goes_on_to_the_same_weights(
    job, tmp_path, monkeypatch
):
    job = replace(job, recipe=replace(job.recipe, epochs=3))
    whole = trained(job, tmp_path / "undisturbed")
    original, calls = AugmentedViews.__call__, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 12:  # 6 batches an epoch: at the end of the second
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(AugmentedViews, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        work(job, tmp_path / "results", tmp_path / "runs")
    folder = tmp_path / "runs" / job.name
    assert (folder / "checkpoint.safetensors").exists()
    assert not is_done(job, tmp_path / "results")
    work(job, tmp_path / "results", tmp_path / "runs")
    assert len(calls) == 12 + 12  # the first epoch is not done again
    assert torch.equal(weights(load_run(folder)), weights(whole))
    assert not (folder / "checkpoint.safetensors").exists()


def test_the_curve_ends_with_what_the_encoder_scores(
    job, tmp_path, monkeypatch
):
    job = replace(job, recipe=replace(job.recipe, epochs=2))
    work(job, tmp_path, tmp_path / "runs")
    found = load_result(result_path(job, tmp_path))
    (first, _), last = found.knn_curve
    assert first == 1 and last == [2, found.metrics["knn_accuracy"]]


def test_what_time_is_up_for_has_no_result_and_is_kept(job, tmp_path):
    folders = tmp_path / "results", tmp_path / "runs"
    with pytest.raises(OutOfTime, match="after 0 of 1 epochs"):
        work(job, *folders, until=0.0)
    assert not is_done(job, folders[0])
    assert (folders[1] / job.name / "recipe.json").exists()
    work(job, *folders)
    assert is_done(job, folders[0])


def test_a_finished_training_is_measured_when_time_is_up(
    job, tmp_path, monkeypatch
):
    trained(job, tmp_path / "runs")
    monkeypatch.setattr(plans, "fit", no_training)
    work(job, tmp_path / "results", tmp_path / "runs", until=0.0)
    assert is_done(job, tmp_path / "results")


def test_a_finished_run_is_read(job, tmp_path, monkeypatch):
    first = trained(job, tmp_path)
    monkeypatch.setattr(plans, "fit", no_training)
    again = trained(job, tmp_path)
    assert torch.equal(weights(again), weights(first))
    assert again.history == first.history


def test_a_run_with_other_settings_gives_way(job, tmp_path):
    other = replace(job, recipe=replace(job.recipe, learning_rate=0.1))
    assert other.name == job.name
    expected = weights(trained(other, tmp_path / "fresh"))
    trained(job, tmp_path / "runs")
    run = trained(other, tmp_path / "runs")
    assert run.recipe == other.recipe
    assert torch.equal(weights(run), expected)
    assert load_run(tmp_path / "runs" / job.name).recipe == other.recipe


def test_a_run_on_other_data_of_the_same_name_stays(tmp_path):
    digits = load("digits", 16, progress=False)
    images = digits.subset(torch.arange(64)), digits.subset(torch.arange(64))

    def begin(data, runs="runs"):
        recipe = recipe_at("smoke", data=data, method="random")
        return trained(Job(recipe, "smoke"), tmp_path / runs, images)

    begin("folder:a/photos")
    with pytest.raises(FileExistsError, match="other settings of data"):
        begin("folder:b/photos")
    run = load_run(tmp_path / "runs/photos/smoke/random-0")
    assert run.recipe.data == "folder:a/photos"
    other = begin("folder:b/photos", "others")
    assert other.recipe.data == "folder:b/photos"


def test_only_dataset_views_and_random_encoders_are_looked_into(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(plans, "look_inside", lambda *_: {"seen": 1.0})
    jobs = jobs_of("turntable", "smoke", [0], ROWS["table 2"])
    for job in jobs:
        work(job, tmp_path / "results", tmp_path / "runs")
    seen = {
        r.method: "seen" in r.metrics
        for r in finished(jobs, tmp_path / "results")
    }
    assert seen == {
        "pixels": True,
        "random": True,
        "simclr-image": False,
        "ciper-image": False,
        "simclr-dataset": True,
        "predictive-dataset": True,
        "ciper-dataset": True,
        "ciper-dataset-target=circular": True,
    }


# watched


def test_a_training_is_watched_by_the_votes_of_unseen_images_neighbors():
    watch = neighbors_watch(turning(), turning())
    assert watch(Reader()) == {"knn_accuracy": 1.0}
    assert watch(Reader(apart=0.0))["knn_accuracy"] < 0.5


def test_ten_thousand_images_are_enough_to_watch(monkeypatch):
    sizes = []

    def embed(encoder, images):
        sizes.append(len(images))
        return torch.ones(len(images), 1)

    monkeypatch.setattr(plans, "embed", embed)
    pixels = torch.zeros(10_007, 3, 1, 1, dtype=torch.uint8)
    many = ImageData("many", pixels, torch.zeros(10_007).long(), ("one",))
    neighbors_watch(many, many.sample(10))(Reader())
    assert sizes == [10_000, 10]


# a look inside


def test_an_encoder_that_reads_object_and_azimuth_has_close_neighbors():
    """10 neighbors: 10, 20, ..., 50 degrees to either side."""
    found = look_inside(Reader(), turning(), turning())
    assert found["object_share"] == 1.0
    assert found["azimuth_gap_deg"] == pytest.approx(30)
    assert found.keys() == {"object_share", "azimuth_gap_deg"}


def test_an_encoder_that_mixes_the_azimuths_up_has_far_neighbors():
    """Steps times 7 are neighbors if 31 = 1 / 7 (mod 36) steps apart."""
    found = look_inside(Reader(shuffled=7), turning(), turning())
    apart = [min(31 * i % 36, 36 - 31 * i % 36) for i in range(1, 6)]
    assert found["azimuth_gap_deg"] == pytest.approx(10 * sum(apart) / 5)
    assert found["azimuth_gap_deg"] == pytest.approx(114)
    assert found["object_share"] == 1.0


def test_the_azimuth_gap_is_that_of_views_of_the_same_object():
    """Here the nearest are other objects seen from the same side."""
    found = look_inside(Reader(apart=0.01), turning(), turning())
    assert found["azimuth_gap_deg"] == pytest.approx(30)
    assert found["object_share"] < 0.5


@pytest.mark.parametrize(
    ("labels", "k"),
    [
        ([0] * 40 + [2] * 11, 10),  # class 1 is absent
        ([0] * 40 + [1] * 4, 3),
        ([0] * 40 + [1], 0),
    ],
)
def test_neighbors_are_as_many_as_the_rarest_class_has(labels, k):
    assert neighbor_count(torch.tensor(labels)) == k


def test_a_class_with_one_image_has_no_azimuth_gap():
    data = turning()
    single = data.subset(torch.arange(2 * 36 + 1))
    found = look_inside(Reader(), data, single)
    assert found.keys() == {"object_share"}


def test_the_masks_are_those_of_the_rendered_images(rooms):
    masks = object_masks(rooms)
    f = {name: factor.values for name, factor in rooms.factors.items()}
    names = "object", "azimuth", "elevation", "distance", "session"
    for i in range(len(rooms)):
        view = [f[name][i : i + 1] for name in names]
        image, mask = turntable.render(*view, 16, True)
        assert torch.equal(image[0], rooms.images[i])
        assert torch.equal(mask[0], masks[i])
    assert 0.02 < masks.float().mean() < 0.5


def test_saliency_on_the_object_alone_has_all_its_mass_inside(
    rooms, monkeypatch
):
    asked = []

    def perfect(encoder, classifier, images, classes):
        asked.append(classes)
        return object_masks(rooms.sample(9)).float()

    monkeypatch.setattr(plans, "saliency", perfect)
    encoder = torch.nn.Conv2d(3, 4, 16)
    flat = torch.nn.Sequential(encoder, torch.nn.Flatten())
    scores = saliency_scores(flat, rooms, rooms, count=9)
    share = object_masks(rooms.sample(9)).float().mean((1, 2))
    assert scores["mass_inside"] == pytest.approx(1)
    expected = (1 / share).mean().item()
    assert scores["mass_ratio"] == pytest.approx(expected)
    assert torch.equal(asked[0], rooms.sample(9).labels)  # each its own class


def test_even_saliency_has_the_mass_of_the_objects_area(rooms, monkeypatch):
    monkeypatch.setattr(
        plans, "saliency", lambda e, c, x, y: torch.ones(len(x), 16, 16)
    )
    flat = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 16), torch.nn.Flatten())
    scores = saliency_scores(flat, rooms, rooms)
    share = object_masks(rooms).float().mean().item()
    assert scores["mass_inside"] == pytest.approx(share)
    assert scores["object_area"] == pytest.approx(share)
    assert scores["mass_ratio"] == pytest.approx(1)


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Small replicas of COIL-100 and ETH-80 where `load` finds them."""
    coil = replicas.Coil100Layout(objects=25, step=45)
    eth = replace(replicas.SMALL_ETH80, objects=4)
    replicas.coil100(tmp_path, coil)
    replicas.eth80(tmp_path, eth)
    monkeypatch.setattr(datasets, "COIL100", coil)
    monkeypatch.setattr(datasets, "ETH80", eth)
    monkeypatch.setenv("CIPER_DATA", str(tmp_path))


def measured(data):
    (job,) = jobs_of(data, "smoke", [0], [dict(method="random")])
    encoder = Encoder(width=0.125).eval()
    return measure(encoder, job, *images_of(job))


def test_coil_is_asked_for_turns_of_seen_and_of_unseen_objects(
    photographs, monkeypatch
):
    asked = []

    def change_error(probe, h, data):
        asked.append(data.labels.unique().tolist())
        return 1.0

    monkeypatch.setattr(plans, "change_error", change_error)
    found = measured("coil100")
    seen, unseen, turning, unseen_turning = asked
    assert (len(seen), unseen) == (20, [4, 9, 14, 19, 24])
    assert {*seen}.isdisjoint(unseen)
    assert len(turning) == 16 and {*turning} < {*seen}
    assert len(unseen_turning) == 4 and {*unseen_turning} < {*unseen}
    names = {"change", "unseen_change", "turning_change"}
    names = {f"{x}_error_deg" for x in {*names, "unseen_turning_change"}}
    assert names < found.keys() and "mass_inside" not in found


def test_where_eth_s_saliency_lies_is_counted(photographs):
    found = measured("eth80")
    assert 0 < found["mass_inside"] < 1
    assert 0.4 < found["object_area"] < 0.6  # half of the pixels
    assert {"change_error_deg", "r2_azimuth", "r2_elevation"} < found.keys()
    assert "unseen_change_error_deg" not in found


def test_every_photograph_has_a_partner_at_smoke_scale():
    for data in ("coil100", "coil100:objects", "eth80"):
        jobs = plan("table 2", "smoke", [0], [data])
        assert {job.recipe.images for job in jobs} == {0}  # all of them


@pytest.mark.parametrize(
    ("item", "data", "place"),
    [
        ("table 2", "turntable", "tdw"),
        ("table 2", "turntable:blocks", "tdw"),
        ("table 2", "turntable-rooms", "core50"),
        ("table 2", "core50:usual", "core50"),
        ("table 2", "coil100", "tdw"),
        ("figure 4b", "eth80", "tdw"),
        ("figure 3", "eth80", "core50"),
        ("table 3", "folder:photos", "cifar10"),
    ],
)
def test_data_take_the_place_of_the_papers(item, data, place):
    assert place_of(item, data) == place
    assert plan(item, "smoke", [0], [data])


@pytest.mark.parametrize("data", ["digits", "folder:photos", "cifar10"])
def test_what_has_one_view_of_each_object_cannot_stand_in(data):
    with pytest.raises(ValueError, match=f"{data} has no such views; use c"):
        plan("table 2", "smoke", [0], [data])


def test_scales_of_the_papers_size_are_ordered_by_their_epochs(tmp_path):
    others = ["a/laptop", "b/paper.old", "b/paper-0", "b/paper-\u0663"]
    for place in [*others, "a/paper", "a/paper-200", "b/paper-100"]:
        (tmp_path / place).mkdir(parents=True)
    expected = ["paper-100", "paper-200", "paper"]
    assert paper_scales(tmp_path) == expected
    assert paper_scales(tmp_path / "nowhere") == []
