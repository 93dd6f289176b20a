"""Works that stimuli made for units are cited by."""

from __future__ import annotations

from bidsdnn.report.reference import Reference

OPTIMAL = (
    Reference("activation-maximisation", "misc",
              ("Erhan, Dumitru", "Bengio, Yoshua", "Courville, Aaron", "Vincent, Pascal"), 2009,
              "Visualizing higher-layer features of a deep network", "University of Montreal", "Technical report 1341"),
    Reference("class-visualisation", "misc",
              ("Simonyan, Karen", "Vedaldi, Andrea", "Zisserman, Andrew"), 2014,
              "Deep inside convolutional networks: visualising image classification models and saliency maps",
              "ICLR Workshop", "arXiv:1312.6034"),
    Reference("deep-visualisation", "misc",
              ("Yosinski, Jason", "Clune, Jeff", "Nguyen, Anh", "Fuchs, Thomas", "Lipson, Hod"), 2015,
              "Understanding neural networks through deep visualization", "ICML Deep Learning Workshop",
              "arXiv:1506.06579"),
    Reference("inceptionism", "misc", ("Mordvintsev, Alexander", "Olah, Christopher", "Tyka, Mike"), 2015,
              "Inceptionism: going deeper into neural networks", "Google Research Blog"),
    Reference("feature-visualisation", "article",
              ("Olah, Chris", "Mordvintsev, Alexander", "Schubert, Ludwig"), 2017,
              "Feature visualization", "Distill", "2(11), e7", "10.23915/distill.00007"),
    Reference("image-parametrisation", "article",
              ("Mordvintsev, Alexander", "Pezzotti, Nicola", "Schubert, Ludwig", "Olah, Chris"), 2018,
              "Differentiable image parameterizations", "Distill", "3(7), e12", "10.23915/distill.00012"),
    Reference("generator-prior", "inproceedings",
              ("Nguyen, Anh", "Dosovitskiy, Alexey", "Yosinski, Jason", "Brox, Thomas", "Clune, Jeff"), 2016,
              "Synthesizing the preferred inputs for neurons in neural networks via deep generator networks",
              "Advances in Neural Information Processing Systems", "29, 3387-3395"),
    Reference("population-control", "article", ("Bashivan, Pouya", "Kar, Kohitij", "DiCarlo, James J."), 2019,
              "Neural population control via deep image synthesis", "Science", "364(6439), eaav9436",
              "10.1126/science.aav9436"),
    Reference("inception-loops", "article",
              ("Walker, Edgar Y.", "Sinz, Fabian H.", "Cobos, Erick", "Muhammad, Taliah", "Froudarakis, Emmanouil",
               "Fahey, Paul G.", "Ecker, Alexander S.", "Reimer, Jacob", "Pitkow, Xaq", "Tolias, Andreas S."), 2019,
              "Inception loops discover what excites neurons most using deep predictive models",
              "Nature Neuroscience", "22, 2060-2065", "10.1038/s41593-019-0517-x"),
    Reference("masks", "inproceedings", ("Fong, Ruth C.", "Vedaldi, Andrea"), 2017,
              "Interpretable explanations of black boxes by meaningful perturbation",
              "IEEE International Conference on Computer Vision", "3429-3437", "10.1109/ICCV.2017.371"),
)  # fmt: skip
