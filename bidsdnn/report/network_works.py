"""The works that introduced networks, and which network is of which family."""

from __future__ import annotations

from bidsdnn.report.reference import Reference


def network_reference(name: str) -> str | None:
    """Key of the work that introduced a network, from the beginning of its name.

    Parameters
    ----------
    name : str
        A network's name, as ``resnet18``, with or without weights.

    Returns
    -------
    str or None
        None for networks of which the table knows nothing.
    """
    return next((key for start, key in _FAMILIES.items() if name.lower().startswith(start)), None)


NETWORKS = (
    Reference("imagenet", "inproceedings",
              ("Deng, Jia", "Dong, Wei", "Socher, Richard", "Li, Li-Jia", "Li, Kai", "Fei-Fei, Li"), 2009,
              "ImageNet: a large-scale hierarchical image database",
              "IEEE Conference on Computer Vision and Pattern Recognition", "248-255", "10.1109/CVPR.2009.5206848"),
    Reference("alexnet", "inproceedings", ("Krizhevsky, Alex", "Sutskever, Ilya", "Hinton, Geoffrey E."), 2012,
              "ImageNet classification with deep convolutional neural networks",
              "Advances in Neural Information Processing Systems", "25, 1097-1105"),
    Reference("vgg", "inproceedings", ("Simonyan, Karen", "Zisserman, Andrew"), 2015,
              "Very deep convolutional networks for large-scale image recognition",
              "International Conference on Learning Representations", "arXiv:1409.1556"),
    Reference("resnet", "inproceedings", ("He, Kaiming", "Zhang, Xiangyu", "Ren, Shaoqing", "Sun, Jian"), 2016,
              "Deep residual learning for image recognition",
              "IEEE Conference on Computer Vision and Pattern Recognition", "770-778", "10.1109/CVPR.2016.90"),
    Reference("cornet", "inproceedings",
              ("Kubilius, Jonas", "Schrimpf, Martin", "Kar, Kohitij", "Rajalingham, Rishi", "Hong, Ha",
               "Majaj, Najib J.", "Issa, Elias B.", "Bashivan, Pouya", "Prescott-Roy, Jonathan", "Schmidt, Kailyn",
               "Nayebi, Aran", "Bear, Daniel", "Yamins, Daniel L. K.", "DiCarlo, James J."), 2019,
              "Brain-like object recognition with high-performing shallow recurrent ANNs",
              "Advances in Neural Information Processing Systems", "32, 12805-12816"),
    Reference("vggish", "inproceedings",
              ("Hershey, Shawn", "Chaudhuri, Sourish", "Ellis, Daniel P. W.", "Gemmeke, Jort F.", "Jansen, Aren",
               "Moore, R. Channing", "Plakal, Manoj", "Platt, Devin", "Saurous, Rif A.", "Seybold, Bryan",
               "Slaney, Malcolm", "Weiss, Ron J.", "Wilson, Kevin"), 2017,
              "CNN architectures for large-scale audio classification",
              "IEEE International Conference on Acoustics, Speech and Signal Processing", "131-135",
              "10.1109/ICASSP.2017.7952132"),
    Reference("r3d", "inproceedings",
              ("Tran, Du", "Wang, Heng", "Torresani, Lorenzo", "Ray, Jamie", "LeCun, Yann", "Paluri, Manohar"), 2018,
              "A closer look at spatiotemporal convolutions for action recognition",
              "IEEE Conference on Computer Vision and Pattern Recognition", "6450-6459", "10.1109/CVPR.2018.00675"),
    Reference("squeezenet", "misc",
              ("Iandola, Forrest N.", "Han, Song", "Moskewicz, Matthew W.", "Ashraf, Khalid", "Dally, William J.",
               "Keutzer, Kurt"), 2016,
              "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", "arXiv",
              "1602.07360"),
    Reference("densenet", "inproceedings",
              ("Huang, Gao", "Liu, Zhuang", "van der Maaten, Laurens", "Weinberger, Kilian Q."), 2017,
              "Densely connected convolutional networks",
              "IEEE Conference on Computer Vision and Pattern Recognition", "2261-2269", "10.1109/CVPR.2017.243"),
    Reference("vit", "inproceedings",
              ("Dosovitskiy, Alexey", "Beyer, Lucas", "Kolesnikov, Alexander", "Weissenborn, Dirk",
               "Zhai, Xiaohua", "others"), 2021,
              "An image is worth 16x16 words: transformers for image recognition at scale",
              "International Conference on Learning Representations", "arXiv:2010.11929"),
    Reference("convnext", "inproceedings",
              ("Liu, Zhuang", "Mao, Hanzi", "Wu, Chao-Yuan", "Feichtenhofer, Christoph", "Darrell, Trevor",
               "Xie, Saining"), 2022,
              "A ConvNet for the 2020s", "IEEE/CVF Conference on Computer Vision and Pattern Recognition",
              "11966-11976", "10.1109/CVPR52688.2022.01167"),
)  # fmt: skip

_FAMILIES = {
    "vggish": "vggish", "cornet": "cornet", "r3d": "r3d", "mc3": "r3d", "r2plus1d": "r3d",
    "alexnet": "alexnet", "vgg": "vgg", "resnet": "resnet", "squeezenet": "squeezenet", "densenet": "densenet",
    "vit_": "vit", "convnext": "convnext",
}  # fmt: skip
