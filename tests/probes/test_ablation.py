"""What becomes of later layers when units are cut out, against the formulas written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bidsdnn.networks import zoo
from bidsdnn.networks.appended import Readout, append
from bidsdnn.networks.network import Network
from bidsdnn.networks.reduction import Reduction
from bidsdnn.probes.ablation import OUTPUT, TOGETHER, ablation
from bidsdnn.probes.units import Unit
from bidsdnn.stimuli import Stimuli


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory) -> Stimuli:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(9):
        Image.fromarray(rng.integers(0, 255, size=(8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return Stimuli.from_folder(folder).with_hashes()


def small() -> Network:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 5)).eval()

    def preprocess(image):
        return torch.from_numpy(np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[:, :8, :8] / 255)

    return Network("small", module, preprocess, "8 pixels", "none", 1, "hash")


def test_every_number_is_the_formulas(stimuli):
    net = small()
    units = (Unit("0", 1), Unit("0", 2, (3, 4)))
    table = ablation(net, stimuli, layers=["1"], units=units, batch_size=4).tables["ablation"]
    assert list(table["cut"].unique()) == ["0:1", "0:2,3,4", TOGETHER]
    batch = torch.stack([net.preprocess(stimuli.read(row)) for row in range(9)])
    with torch.no_grad():
        before = net.module(batch)
        maps = net.module[0](batch)
        maps[:, 1] = 0
        maps[:, 2, 3, 4] = 0
        after = net.module[1:](maps)
    row = table[(table["cut"] == TOGETHER) & (table["layer"] == OUTPUT)].iloc[0]
    a, b = before.double().numpy(), after.double().numpy()
    assert row["mean_absolute_change"] == pytest.approx(np.abs(a - b).mean(), rel=1e-5)
    assert row["relative_change"] == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-5)
    assert row["pearsonr"] == pytest.approx(
        np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]), rel=1e-5
    )
    assert row["other_maximum"] == pytest.approx((a.argmax(1) != b.argmax(1)).mean())
    upper = np.triu_indices(9, 1)
    expected = np.corrcoef((1 - np.corrcoef(a))[upper], (1 - np.corrcoef(b))[upper])[0, 1]
    assert row["rdm_pearsonr"] == pytest.approx(expected, rel=1e-4)
    alone = table[(table["cut"] == "0:2,3,4") & (table["layer"] == "0")].iloc[0]
    assert 0 < alone["relative_change"] < row["relative_change"]


def test_whole_layers_of_the_demo(stimuli, tmp_path):
    net = zoo.build("demo")
    result = ablation(net, stimuli, layers=net.canonical())
    table = result.tables["ablation"].pivot(index="cut", columns="layer", values="relative_change")
    # conv3 and conv4 both read conv2, and fc reads conv3 and conv5; nothing changes before a cut.
    for cut, untouched in {"conv3": ["conv1", "conv2", "conv4", "conv5"], "conv4": ["conv1", "conv2", "conv3"]}.items():
        assert (table.loc[cut, untouched] == 0).all()
        assert table.loc[cut, cut] == pytest.approx(1) and table.loc[cut, "fc"] > 0
    assert (table[OUTPUT] == table["fc"]).all() and TOGETHER not in table.index
    same = result.tables["ablation"]
    assert same.loc[same["relative_change"] == 0, ["pearsonr", "rdm_pearsonr"]].stack().min() == pytest.approx(1)
    assert "conv3" in result.sidecar["Ablated"] and "set to zero" in result.sidecar["Methods"]


@pytest.mark.parametrize("to", ["mean", "shuffled"])
def test_numbers_do_not_depend_on_batches(stimuli, to):
    net = small()
    tables = [
        ablation(net, stimuli, layers=["3"], units=(Unit("1", 0),), to=to, batch_size=size).tables["ablation"]
        for size in (2, 32)
    ]
    numbers = [table.select_dtypes("number").to_numpy() for table in tables]
    np.testing.assert_allclose(*numbers, rtol=1e-5, atol=1e-7)


def test_a_brain_is_compared_and_never_cut(stimuli):
    net = small()
    weights = np.zeros((4, 2))
    weights[1, 0] = weights[2, 1] = 1.0
    reduction = Reduction(pooling="mean", modules=dict(net.module.named_modules()))
    brain = append(net, [Readout("1", weights, np.zeros(2), np.zeros(4), reduction)])
    units = (Unit("0", 1), Unit("brain", 0, name="brain:early"), Unit("brain", 1, name="brain:late"))
    table = ablation(brain, stimuli, layers=["1"], units=units).tables["ablation"].set_index(["cut", "layer"])
    # The region that the cut channel alone drives is lost, the other stays.
    assert set(table.index.get_level_values(0)) == {"0:1"}
    assert table.loc[("0:1", "brain:early"), "relative_change"] == pytest.approx(1)
    assert table.loc[("0:1", "brain:late"), "relative_change"] == 0
    # A single unit has no pattern: its r is over stimuli.
    assert np.isnan(table.loc[("0:1", "brain:early"), "pearsonr"])
    assert table.loc[("0:1", "brain:late"), "pearsonr"] == pytest.approx(1)


def test_constant_outputs_have_no_correlation(stimuli):
    net = replace(small(), weights_sha256="other")
    table = ablation(net, stimuli, layers=["0"], units=()).tables["ablation"].set_index("layer")
    assert np.isnan(table.loc["0", "pearsonr"]) and np.isnan(table.loc["0", "rdm_pearsonr"])
