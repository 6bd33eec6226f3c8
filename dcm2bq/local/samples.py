"""Sample files, copied from those that come with pydicom."""

import importlib.util
import shutil
from pathlib import Path

_SAMPLES = {
    "CT_small.dcm": "CT/CT_small.dcm",
    "J2K_pixelrep_mismatch.dcm": "CT/jpeg2000.dcm",
    "dicomdirtests/77654033/CT2/17106": "CT/head/17106.dcm",
    "dicomdirtests/77654033/CT2/17136": "CT/head/17136.dcm",
    "dicomdirtests/77654033/CT2/17166": "CT/head/17166.dcm",
    "dicomdirtests/77654033/CT2/17196": "CT/head/17196.dcm",
    "dicomdirtests/77654033/CR1/6154": "CR/spine/6154.dcm",
    "dicomdirtests/77654033/CR2/6247": "CR/spine/6247.dcm",
    "dicomdirtests/77654033/CR3/6278": "CR/spine/6278.dcm",
    "MR_small.dcm": "MR/MR_small.dcm",
    "MR_small_bigendian.dcm": "MR/big endian.dcm",
    "examples_overlay.dcm": "MR/abdomen^liver.dcm",
    "dicomdirtests/98892003/MR1/4919": "MR/brain/4919.dcm",
    "dicomdirtests/98892003/MR2/4950": "MR/brain/4950.dcm",
    "dicomdirtests/98892003/MR2/4981": "MR/brain/4981.dcm",
    "dicomdirtests/98892003/MR1/15820": "MR/carotids/15820.dcm",
    "dicomdirtests/98892003/MR2/15970": "MR/carotids/15970.dcm",
    "JPEG2000.dcm": "NM/bone.dcm",
    "examples_palette.dcm": "US/palette.dcm",
    "examples_ybr_color.dcm": "US/30% #1.dcm",
    "waveform_ecg.dcm": "ECG/waveform.dcm",
    "liver_1frame.dcm": "SEG/liver.dcm",
    "rtplan.dcm": "RT/plan.dcm",
    "rtdose.dcm": "RT/dose.dcm",
    "reportsi.dcm": "SR/report.dcm",
    "test-SR.dcm": "SR/test.dcm",
    "image_dfl.dcm": "OT/deflated.dcm",
    "SC_rgb_rle_2frame.dcm": "OT/screenshot.dcm",
    "../charset_files/chrH31.dcm": "names/山田.dcm",
    "../charset_files/chrGreek.dcm": "names/Διονυσιος.dcm",
}
_CUT_AT = 1500  # bytes: within the header of CT_small.dcm


def write_samples(folder: Path) -> None:
    """Fill `folder` with DICOM files of many kinds, and with broken and other files."""
    package = importlib.util.find_spec("pydicom")
    if package is None or package.origin is None:
        raise FileNotFoundError("pydicom")
    source = Path(package.origin).parent / "data" / "test_files"
    for origin, name in _SAMPLES.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / origin, target)
    broken = folder / "broken"
    broken.mkdir()
    (broken / "cut short.dcm").write_bytes((source / "CT_small.dcm").read_bytes()[:_CUT_AT])
    (broken / "letter.dcm").write_text("A letter to the radiologist, saved under the wrong name.\n")
    (folder / "README.txt").write_text("Not DICOM, and not named like DICOM: ignored.\n")
