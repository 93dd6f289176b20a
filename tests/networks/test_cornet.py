"""CORnet: the published names and sizes of parameters, and the equations of each area, against their own words."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bidsdnn.errors import DataError
from bidsdnn.networks import cornet, zoo

# Parameters in millions; of Z and RT counted by hand from the widths 3, 64, 128, 256, 512 and the readout.
COUNTS = {"cornet_z": 2.071656, "cornet_rt": 5.208936, "cornet_s": 53.4}


@pytest.mark.parametrize("name", COUNTS)
def test_weights_with_the_published_names_load(tmp_path, name):
    source = cornet.MAKERS[name]()
    state = {f"module.{key}": tensor for key, tensor in source.state_dict().items()}
    torch.save({"epoch": 43, "state_dict": state}, tmp_path / "published.pth")
    network = zoo.build(name, weights=str(tmp_path / "published.pth"))
    pictures = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(network.module(pictures), source.eval()(pictures))
    assert network.canonical() == ["V1", "V2", "V4", "IT", "decoder"]
    assert sum(p.numel() for p in source.parameters()) / 1e6 == pytest.approx(COUNTS[name], rel=0.001)
    del state["module.V4.conv1.weight" if name != "cornet_z" else "module.V4.conv.weight"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(DataError, match=r"1 missing, first 'V4\.conv"):
        zoo.build(name, weights=str(tmp_path / "less.pth"))


def test_names_of_parameters():
    keys = {name: set(make().state_dict()) for name, make in cornet.MAKERS.items()}
    for key in ("V1.conv.weight", "V1.conv.bias", "IT.conv.weight", "decoder.linear.bias"):
        assert key in keys["cornet_z"]
    for key in ("V1.conv_input.bias", "V2.norm_input.weight", "V4.conv1.weight", "IT.norm1.bias"):
        assert key in keys["cornet_rt"]
    for key in ("V1.norm2.running_var", "V2.skip.weight", "V4.norm3_3.weight", "IT.norm1_1.bias", "IT.norm_skip.bias"):
        assert key in keys["cornet_s"]
    assert not {"V2.norm1_2.weight", "V4.norm1_4.weight"} & keys["cornet_s"]


@pytest.mark.parametrize(("name", "sides"), [("cornet_z", 56), ("cornet_s", 56), ("cornet_rt", 56)])
def test_sizes_halve_from_area_to_area(name, sides):
    shapes = zoo.build(name, weights="none").shapes(["V1", "V2", "V4", "IT", "decoder"])
    widths = (64, 128, 256, 512)
    assert [shape for _, shape in shapes.values()][:4] == [(w, sides >> i, sides >> i) for i, w in enumerate(widths)]
    assert shapes["decoder"][1] == (1000,)


def test_an_area_of_s_written_out():
    torch.manual_seed(0)
    area = cornet.BottleneckArea(2, 4, times=2).eval()
    for norm in area.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.running_mean)
    x = torch.randn(3, 2, 8, 8)
    h = F.conv2d(x, area.conv_input.weight)
    for step, stride in ((0, 2), (1, 1)):
        skip = area.norm_skip(F.conv2d(h, area.skip.weight, stride=2)) if step == 0 else h
        h = getattr(area, f"norm1_{step}")(F.conv2d(h, area.conv1.weight)).clamp(min=0)
        h = getattr(area, f"norm2_{step}")(F.conv2d(h, area.conv2.weight, stride=stride, padding=1)).clamp(min=0)
        h = (getattr(area, f"norm3_{step}")(F.conv2d(h, area.conv3.weight)) + skip).clamp(min=0)
    assert h.shape == (3, 4, 4, 4)
    torch.testing.assert_close(area(x), h)


def test_rt_lets_what_is_seen_climb_one_area_a_step():
    torch.manual_seed(0)
    pictures = torch.rand(2, 3, 64, 64)
    nets = {times: cornet.CORnetRT(times).eval() for times in (3, 4, 5)}
    for net in nets.values():
        net.load_state_dict(nets[5].state_dict())
    one, other = (nets[3](picture[None]) for picture in pictures)
    torch.testing.assert_close(one, other)  # after three steps IT has not seen the picture
    assert not torch.allclose(nets[4](pictures[:1]), nets[4](pictures[1:]))
    area, x = nets[5].V1, pictures
    drive = F.relu(area.norm_input(F.conv2d(x, area.conv_input.weight, area.conv_input.bias, stride=4, padding=3)))
    state = torch.zeros_like(drive)
    for _ in range(5):
        state = F.relu(area.norm1(F.conv2d(drive + state, area.conv1.weight, padding=1)))
    seen = []
    handle = area.register_forward_hook(lambda module, inputs, output: seen.append(output))
    nets[5](x)
    handle.remove()
    assert len(seen) == 5
    torch.testing.assert_close(seen[-1], state)
