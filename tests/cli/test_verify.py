"""``frostline verify``: what a run left bears its proof out, and tampering shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from safetensors.torch import save_file

import frostline as fl
from frostline.base.sealing import SEAL_FILE, Seal
from frostline.errors import ModelError
from tests.checkpoints.folders import tensors_of
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

LEFT = ("README.md", "config.json", "tokenizer.json")
WORDS = "bert.embeddings.word_embeddings.weight"
BUFFERS = {"bert.embeddings.position_ids", "bert.embeddings.token_type_ids"}


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to tamper with."""
    return tiny.copy_of(trained, tmp_path / "run")


def edit(file: Path, change: Callable[[Any], object]) -> None:
    """Change a file and the list of digests, as somebody who forges."""
    values = json.loads(file.read_text(encoding="utf-8"))
    change(values)
    file.write_text(json.dumps(values), encoding="utf-8")
    reseal(file.parent)


def reseal(folder: Path) -> None:
    if (folder / SEAL_FILE).exists():
        Seal.of(folder).write(folder)


def flip(folder: Path, name: str) -> None:
    tensors = tensors_of(folder)
    tensors[name].view(torch.int32).view(-1)[0] ^= 1
    store(folder, tensors)


def store(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    reseal(folder)


def found(folder: Path, **options: Any) -> list[tuple[str, str | None]]:
    return [(each.file, each.name) for each in fl.verify_run(folder, **options).disagreements]


def test_a_run_as_it_was_left(frostline: Callable[..., Done], run: Path, quick_bert: Path) -> None:
    done = frostline("verify", run)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("Proof: 7 frozen tensors bit-identical; ")
    assert lines[1] == f"9 files, as the run wrote them; digest {Seal.read(run).digest}."
    assert lines[2] == f"41 tensors are as the proof says; 39 began as they are in {quick_bert}."
    assert lines[3] == (
        "Not verifiable: 2 tensors (not saved with the weights): "
        "bert.embeddings.position_ids, bert.embeddings.token_type_ids."
    )
    assert lines[4].startswith("Not verifiable: 2 tensors (not in the base, ")
    assert lines[4].endswith("): classifier.weight, classifier.bias.")


def test_as_json(frostline: Callable[..., Done], run: Path) -> None:
    values = json.loads(frostline("verify", run, "--json").out)
    assert (values["ok"], values["hashed"], values["from_base"], values["disagreements"]) == (True, 41, 39, [])
    assert set(values["unverified"]) == {*BUFFERS, "classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("name", [WORDS, "bert.pooler.dense.bias", "classifier.weight"])
def test_a_bit_of_the_weights(frostline: Callable[..., Done], run: Path, name: str) -> None:
    flip(run, name)
    done = frostline("verify", run)
    assert (done.status, done.err) == (1, "")
    assert f"Disagreement: the weights of {name} are not those of the proof." in done.out.splitlines()
    assert found(run) == [("weights", name)]


def test_a_frozen_tensor_and_its_digest(run: Path) -> None:
    flip(run, WORDS)
    digest = fl.fingerprint(run).digests[WORDS]
    edit(run / "proof.json", lambda proof: proof["tensors"][WORDS].update(after=digest))
    checked = fl.verify_run(run)
    assert not checked.ok
    assert checked.proof.drifted == (WORDS,)
    assert ("proof.json", None) in found(run)  # its verdict does not follow from its digests
    edit(run / "proof.json", lambda proof: proof["tensors"][WORDS].update(before=digest))
    assert found(run) == [("base", WORDS)]


def test_a_tensor_set_free_afterwards(run: Path) -> None:
    edit(run / "proof.json", lambda proof: proof["tensors"][WORDS].update(frozen=False))
    assert {("plan.json", WORDS), ("metrics.json", WORDS), ("proof.json", None)} <= set(found(run))


def test_a_row_too_few_or_too_many(run: Path) -> None:
    edit(run / "proof.json", lambda proof: proof["tensors"].pop("classifier.bias"))
    assert ("proof.json", "classifier.bias") in found(run)
    edit(run / "proof.json", lambda proof: proof["tensors"].update(other=proof["tensors"][WORDS]))
    assert ("proof.json", "other") in found(run)


@pytest.mark.parametrize(("key", "value"), [("ok", False), ("units", []), ("version", 2)])
def test_what_the_proof_says_of_itself(run: Path, key: str, value: Any) -> None:
    edit(run / "proof.json", lambda proof: proof.update({key: value}))
    assert found(run) == [("proof.json", None)]


def test_the_words_of_the_verdict_are_no_fact(run: Path) -> None:
    edit(run / "proof.json", lambda proof: proof.update(verdict="as another release words it"))
    assert found(run) == []


@pytest.mark.parametrize("key", ["freeze", "train_only", "frozen_mode"])
@pytest.mark.parametrize("value", [5, ["a"], {}])
def test_settings_that_are_no_plan(run: Path, key: str, value: Any) -> None:
    edit(run / "metrics.json", lambda metrics: metrics["settings"].update({key: value}))
    assert found(run) == [("metrics.json", None)]


@pytest.mark.parametrize("value", [5, ["a"], True])
def test_settings_that_name_no_base(refused: Callable[..., str], run: Path, value: Any) -> None:
    edit(run / "metrics.json", lambda metrics: metrics["settings"].update(model=value))
    text = refused("verify", run)
    assert f"The 'model' in metrics.json is {str(value)!r}, which is no name of a checkpoint." in text
    assert "--base" in text


@pytest.mark.parametrize("value", [-1, "3", None])
def test_a_step_that_is_none(refused: Callable[..., str], run: Path, value: Any) -> None:
    edit(run / "proof.json", lambda proof: proof.update(from_step=value))
    assert "is no step" in refused("verify", run)


def test_a_proof_that_begins_later(run: Path, quick_bert: Path) -> None:
    """As ``fl.Trainer`` leaves it where a checkpoint has no fingerprint; the command goes on from none of those."""
    free = "bert.pooler.dense.weight"

    def later(proof: Any) -> None:
        proof["from_step"] = 3
        proof["tensors"][free]["before"] = "0" * 64

    edit(run / "proof.json", later)
    assert found(run) == [("proof.json", None)]
    for name in ("metrics.json", SEAL_FILE):
        (run / name).unlink()
    checked = fl.verify_run(run, quick_bert)
    assert checked.ok
    assert checked.unverified[free] == "the proof begins at step 3, not with the base"
    assert "moved since step 3" in str(checked)
    edit(run / "proof.json", lambda proof: proof["tensors"][WORDS].update(before="0" * 64, after="0" * 64))
    assert ("base", WORDS) in found(run, base=quick_bert)  # what is frozen has to be the base's all the same


def test_another_unit(run: Path) -> None:
    edit(run / "proof.json", lambda proof: proof["tensors"][WORDS].update(unit="head"))
    assert found(run) == [("proof.json", WORDS)]


def test_another_plan(run: Path) -> None:
    edit(run / "plan.json", lambda plan: plan.update(freeze="embeddings, pooler"))
    assert found(run) == [("plan.json", "bert.pooler.dense.bias"), ("plan.json", "bert.pooler.dense.weight")]
    edit(run / "plan.json", lambda plan: plan.update(freeze="layers[9]"))
    assert found(run) == [("plan.json", None)]
    (run / "plan.json").write_text("{", encoding="utf-8")
    reseal(run)
    assert found(run) == [("plan.json", None)]
    (run / "plan.json").unlink()
    reseal(run)
    assert found(run) == [("plan.json", None)]


def test_tensors_too_few_or_too_many(run: Path) -> None:
    tensors = tensors_of(run)
    store(run, tensors | {"more": torch.ones(1)})
    assert found(run) == [("weights", "more")]
    del tensors["classifier.bias"]
    store(run, tensors)
    assert found(run) == [("weights", "classifier.bias")]


def test_another_base(run: Path, quick_bert: Path, tmp_path: Path) -> None:
    base = tiny.copy_of(quick_bert, tmp_path / "base")
    assert fl.verify_run(run, base).ok
    flip(base, "embeddings.word_embeddings.weight")
    flip(base, "pooler.dense.weight")
    assert found(run, base=base) == [("base", WORDS), ("base", "bert.pooler.dense.weight")]


def test_no_base_known(refused: Callable[..., str], run: Path, quick_bert: Path) -> None:
    (run / "metrics.json").unlink()
    reseal(run)
    assert "name no base to compare with.\nName it with --base, or pass --no-base" in refused("verify", run)
    assert fl.verify_run(run, quick_bert).ok
    checked = fl.verify_run(run, no_base=True)
    assert checked.ok
    assert (checked.base, checked.from_base) == (None, 0)
    assert "no base is known" in str(checked)
    assert "none is wanted" in refused("verify", run, "--base", quick_bert, "--no-base")


# Damage and forgery


def test_a_forged_frozen_tensor_without_the_name_of_its_base(refused: Callable[..., str], run: Path) -> None:
    """All that is consistent within the folder is forged; the base would tell, so its name is taken away."""
    flip(run, WORDS)
    digest = fl.fingerprint(run).digests[WORDS]
    edit(run / "proof.json", lambda proof: proof["tensors"][WORDS].update(before=digest, after=digest))
    (run / "metrics.json").unlink()
    assert "lacks metrics.json, which a run leaves.\nCopy the folder anew, whole." in refused("verify", run)
    (run / SEAL_FILE).unlink()
    assert "name no base to compare with" in refused("verify", run)


@pytest.mark.parametrize(
    "name", [*LEFT, "tokenizer_config.json", "plan.json", "metrics.json", "proof.json", "model.safetensors"]
)
def test_any_byte_of_any_file(
    frostline: Callable[..., Done], refused: Callable[..., str], run: Path, name: str
) -> None:
    content = bytearray((run / name).read_bytes())
    content[-2] ^= 1
    (run / name).write_bytes(content)
    done = frostline("verify", run)
    assert done.status in {1, 2}, done
    assert (name if name != "config.json" else "The configuration in") in done.out + done.err
    (run / name).unlink()
    phrase = {"proof.json": "holds no proof.json", "config.json": "holds no config.json"}
    assert phrase.get(name, f"lacks {name}, which a run leaves") in refused("verify", run)
    (run / name).symlink_to("/dev/zero")
    refused("verify", run)


def test_an_edited_step(frostline: Callable[..., Done], run: Path) -> None:
    edit(run / "proof.json", lambda proof: proof.update(from_step=3))
    done = frostline("verify", run)
    assert done.status == 1
    assert "Disagreement: proof.json begins at step 3, and those of 'frostline train' at 0." in done.out.splitlines()


def test_the_digest_that_was_noted(frostline: Callable[..., Done], refused: Callable[..., str], run: Path) -> None:
    noted = Seal.read(run).digest
    assert frostline("verify", run, "--digest", noted).status == 0
    flip(run, "classifier.weight")
    after = fl.fingerprint(run).digests["classifier.weight"]
    edit(run / "proof.json", lambda proof: proof["tensors"]["classifier.weight"].update(after=after))
    assert frostline("verify", run).status == 0  # a forged tensor that may train: nothing in the folder tells
    done = frostline("verify", run, "--digest", noted)
    assert done.status == 1
    assert f"the digest of the files is {Seal.read(run).digest}, not {noted}." in done.out
    assert "'abc' is no digest, which has 64 hex digits" in refused("verify", run, "--digest", "abc")
    (run / SEAL_FILE).unlink()
    assert "lacks files.json" in refused("verify", run, "--digest", noted)


def test_a_list_of_digests_that_is_damaged(refused: Callable[..., str], run: Path) -> None:
    (run / SEAL_FILE).write_text("{", encoding="utf-8")
    assert "files.json' cannot be read" in refused("verify", run)


def test_what_was_put_beside(frostline: Callable[..., Done], run: Path) -> None:
    (run / "adapter_config.json").write_text("{}", encoding="utf-8")
    done = frostline("verify", run)
    assert done.status == 0
    assert "Not left by the run: adapter_config.json." in done.out.splitlines()


def test_a_run_that_was_kept_as_a_delta(
    frostline: Callable[..., Done], run: Path, quick_bert: Path, tmp_path: Path
) -> None:
    assert frostline("delta", "save", quick_bert, run, tmp_path / "small").status == 0
    assert frostline("delta", "load", tmp_path / "small", "--out", tmp_path / "whole").status == 0
    assert frostline("verify", tmp_path / "whole", "--digest", Seal.read(run).digest).status == 0


def test_weights_under_other_names_than_the_model_s(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(
        "mixtral",
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
        vocab_size=20,
        pad_token_id=0,
    )
    model = cast("Any", AutoModelForSequenceClassification).from_config(config)
    proof = fl.verify(fl.fingerprint(model), model, fl.Plan(freeze="backbone"))
    fl.freeze(model, "backbone")
    model.save_pretrained(tmp_path)
    (tmp_path / "proof.json").write_text(json.dumps(proof.to_dict()), encoding="utf-8")
    stored = tensors_of(tmp_path)
    assert set(stored) - {name for name, _ in model.named_parameters()}
    assert fl.verify_run(tmp_path, no_base=True).ok
    flip(tmp_path, next(name for name in stored if ".experts.0." in name))
    assert [file for file, _ in found(tmp_path, no_base=True)] == ["weights"]


def test_what_is_no_run(refused: Callable[..., str], run: Path, bert: Path, tmp_path: Path) -> None:
    assert "holds no proof.json, so there is no proof to check.\nGive the folder" in refused("verify", bert)
    assert "no folder" in refused("verify", tmp_path / "nowhere")
    assert "There is no folder 'org/name'" in refused("verify", "org/name")
    (run / "proof.json").write_text('{"tensors": {"a": {}}}', encoding="utf-8")
    assert "lacks 'before'" in refused("verify", run)
    (run / "proof.json").write_text('{"tensors": {}}', encoding="utf-8")
    assert "of another model" in refused("verify", run)
    for text in ("[" * 100_000, "[]", "{"):
        (run / "proof.json").write_text(text, encoding="utf-8")
        assert "not as the run wrote it" in refused("verify", run)


def test_a_base_that_is_gone(run: Path) -> None:
    edit(run / "metrics.json", lambda metrics: metrics["settings"].update(model="/nowhere/at-all"))
    with pytest.raises(ModelError, match=r"no folder '/nowhere/at-all'\.\nName the base of this run with --base\."):
        fl.verify_run(run)
