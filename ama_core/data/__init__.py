"""Images in: the catalog of data sets, one's own files, preprocessing and splits. Everything is uint8 (N, H, W, C)."""

from ama_core.data.decode import decode_image, picture_array
from ama_core.data.files import (
    FileImage,
    Source,
    check_path,
    check_sources,
    count_images,
    iter_images,
    iter_unread,
    read_npz,
)
from ama_core.data.folders import (
    absolute_source,
    count_any,
    holds_training_images,
    load_any,
    load_folder,
    overlapping,
    same_source,
)
from ama_core.data.guidance import Guidance, calibration_fraction, guidance
from ama_core.data.imageset import ImageSet
from ama_core.data.inspection import Inspection, divided, inspect
from ama_core.data.preprocess import check_images, frame, prepare
from ama_core.data.sets import SetInfo, available, catalog, class_of, data_dir, label_of, load
from ama_core.data.splits import HoldOut, anomaly_mask, draw, draw_anomalies, hold_out, one_class, validation_anomalies

__all__ = [
    "FileImage",
    "Source",
    "Guidance",
    "HoldOut",
    "ImageSet",
    "Inspection",
    "SetInfo",
    "absolute_source",
    "anomaly_mask",
    "available",
    "catalog",
    "class_of",
    "calibration_fraction",
    "check_images",
    "check_path",
    "check_sources",
    "data_dir",
    "count_any",
    "count_images",
    "decode_image",
    "divided",
    "draw",
    "draw_anomalies",
    "frame",
    "guidance",
    "hold_out",
    "holds_training_images",
    "inspect",
    "label_of",
    "iter_images",
    "iter_unread",
    "load",
    "load_any",
    "load_folder",
    "one_class",
    "overlapping",
    "picture_array",
    "prepare",
    "read_npz",
    "same_source",
    "validation_anomalies",
]
