"""`imgdata doctor`: this machine and a dataset -> what holds loading back, and what would help."""

from imgdata.measure.doctor.inputs import DoctorOptions
from imgdata.measure.doctor.run import Findings, Report, doctor
from imgdata.measure.doctor.wait import advice_for_run, advice_for_wait

__all__ = ["DoctorOptions", "Findings", "Report", "advice_for_run", "advice_for_wait", "doctor"]
