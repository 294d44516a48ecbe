"""stub"""
from pathlib import Path
def write_page(folder): return Path(folder)/'report.html'
