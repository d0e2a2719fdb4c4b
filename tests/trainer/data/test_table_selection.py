import pytest

from features.store import create_store
from schemas.errors import StoreError, UsageError
from trainer.data.table_selection import select_held_out_tables, select_tables
from trainer.models.model_specs import model_spec

SPEC = model_spec("soft_attention")


@pytest.fixture
def own_store(tmp_path, squares):
    return squares.make_store(tmp_path / "s", squares.pictures(8))


def test_the_only_tables_are_selected(store):
    tables = select_tables(store, SPEC)
    assert [dataset.name for dataset in tables.datasets] == ["squares"]
    assert tables.features.shape == (16, 19)
    assert tables.caption_tables[0].table_config.dataset == "squares"


def test_tables_of_other_shapes_are_ignored(own_store, squares):
    squares.add_features(own_store, squares.pictures(8), pooled=True)
    assert len(select_tables(own_store, SPEC).features.shape) == 2


def test_a_table_of_another_shape_is_refused_with_a_command(tmp_path, squares):
    store = squares.make_store(tmp_path / "s", squares.pictures(8), pooled=True)
    with pytest.raises(UsageError, match=r"requires spatial features.*--pooling none"):
        select_tables(store, SPEC)
    with pytest.raises(UsageError, match=r"requires spatial features.*--pooling none"):
        select_tables(store, SPEC, features=store.feature_tables()[0].fingerprint[:8])


def test_several_feature_tables_are_listed_with_an_option(own_store, squares):
    squares.add_features(own_store, squares.pictures(8), dtype="float32")
    with pytest.raises(StoreError, match=r"several feature tables fit: .*float.*float.*--feature-table"):
        select_tables(own_store, SPEC)
    for table in own_store.feature_tables():
        assert select_tables(own_store, SPEC, features=table.fingerprint[:10]).features.fingerprint == table.fingerprint


def test_several_caption_tables_are_listed_with_an_option(own_store, squares):
    squares.add_captions(own_store, squares.pictures(8), max_length=6)
    with pytest.raises(StoreError, match=r"several caption tables fit: .*18 tokens.*--caption-table"):
        select_tables(own_store, SPEC)
    for table in own_store.caption_tables():
        chosen = select_tables(own_store, SPEC, captions=table.fingerprint[:10])
        assert chosen.caption_tables[0].fingerprint == table.fingerprint


def test_several_datasets_are_listed_with_an_option(own_store, squares):
    squares.add_captions(own_store, squares.pictures(8), "more")
    squares.add_dataset(own_store, squares.pictures(8), "more")
    with pytest.raises(StoreError, match=r"several datasets have captions: more, squares.*--dataset"):
        select_tables(own_store, SPEC)
    assert select_tables(own_store, SPEC, ["more"]).caption_tables[0].table_config.dataset == "more"


def test_datasets_with_different_vocabularies_are_refused(own_store, squares):
    squares.add_captions(own_store, squares.pictures(8), "more", words=[*squares.WORDS, "also"])
    squares.add_dataset(own_store, squares.pictures(8), "more")
    with pytest.raises(StoreError, match=r"different vocabularies.*--dataset-name more --vocab-from"):
        select_tables(own_store, SPEC, ["squares", "more"])


def test_captions_of_another_dataset_are_refused(own_store, squares):
    squares.add_captions(own_store, squares.pictures(8), "more")
    squares.add_dataset(own_store, squares.pictures(8), "more")
    other = select_tables(own_store, SPEC, ["more"]).caption_tables[0].fingerprint
    with pytest.raises(StoreError, match=r"belongs to more.*--dataset more"):
        select_tables(own_store, SPEC, ["squares"], captions=other)


def test_a_missing_table_is_an_error_with_a_command(tmp_path, squares):
    store = create_store(tmp_path / "s")
    squares.add_dataset(store, squares.pictures(8))
    with pytest.raises(StoreError, match=r"no dataset has images and captions.*prepare captions"):
        select_tables(store, SPEC)
    with pytest.raises(StoreError, match=r"squares has no captions.*prepare captions … --dataset-name squares"):
        select_tables(store, SPEC, ["squares"])
    squares.add_captions(store, squares.pictures(8))
    with pytest.raises(StoreError, match=r"no feature table contains images of squares.*prepare features"):
        select_tables(store, SPEC)


def test_unknown_names_are_refused(store):
    with pytest.raises(StoreError, match=r"no dataset 'coco'.*squares"):
        select_tables(store, SPEC, ["coco"])
    with pytest.raises(StoreError, match="feature table"):
        select_tables(store, SPEC, features="ffffffffff")


def test_a_run_is_evaluated_on_its_own_tables_or_those_of_other_datasets(own_store, squares):
    squares.add_captions(own_store, squares.pictures(8), "more", words=[*squares.WORDS, "also"])
    squares.add_dataset(own_store, squares.pictures(8), "more")
    trained = select_tables(own_store, SPEC, ["squares"])
    assert select_held_out_tables(own_store, trained) == trained
    other = select_held_out_tables(own_store, trained, ["more"])
    assert [dataset.name for dataset in other.datasets] == ["more"]
    assert other.caption_tables[0].table_config.dataset == "more"
    assert other.features == trained.features
    own = trained.caption_tables[0].fingerprint
    with pytest.raises(UsageError, match=r"--caption-table: .* belongs to the dataset squares.*--dataset squares"):
        select_held_out_tables(own_store, trained, ["more"], [own])
    with pytest.raises(StoreError, match="nothing"):
        select_held_out_tables(own_store, trained, ["nothing"])


def test_a_caption_table_with_references_is_chosen_among_several(own_store, squares):
    for words in (squares.WORDS, [*squares.WORDS, "also"]):
        squares.add_captions(own_store, squares.pictures(8), "more", words=words)
    squares.add_dataset(own_store, squares.pictures(8), "more")
    trained = select_tables(own_store, SPEC, ["squares"])
    with pytest.raises(StoreError, match=r"several caption tables fit: .*--caption-table"):
        select_held_out_tables(own_store, trained, ["more"])
    for table in own_store.caption_tables():
        if table.table_config.dataset == "more":
            chosen = select_held_out_tables(own_store, trained, ["squares", "more"], [table.fingerprint])
            assert [one.fingerprint for one in chosen.caption_tables][1] == table.fingerprint
    both = [table.fingerprint for table in own_store.caption_tables() if table.table_config.dataset == "more"]
    with pytest.raises(UsageError, match="--caption-table: two caption tables belong to one dataset"):
        select_held_out_tables(own_store, trained, ["more"], both)
