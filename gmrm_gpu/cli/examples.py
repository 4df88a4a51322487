"""The examples at the end of each command's help."""

from __future__ import annotations

EXAMPLES = {
    "simulate": """\
gmrm-gpu simulate --out sim
gmrm-gpu simulate nanoparticles --size 128x128x40 --difficulty mid --seed 3 --out particles
gmrm-gpu simulate --bits 16 --format npy --set n_empty=10 --set drift_px=0""",
    "info": """\
gmrm-gpu info movie.tif
gmrm-gpu info movie.mp4 --luminance --crop 0:-40,: --exclude mask.png""",
    "fit": """\
gmrm-gpu fit movie.tif --frame 20 --components 3
gmrm-gpu fit movie.tif --frame 20 --phases anode,electrolyte,electrolyte,li --out fit20""",
    "select": """\
gmrm-gpu select movie.tif
gmrm-gpu select movie.tif --rate 0.05 --components 2,3,4 --trend none --trend linear --out choice""",
    "analyze": """\
gmrm-gpu analyze movie.tif --components 3 --pixel-size 5nm --thickness 0.5um
gmrm-gpu analyze movie.tif --rate 0.1 --seed 7 --out tenth
gmrm-gpu analyze movie.tif --phases darkest --frames 10:200:2 --exclude label.tif --no-report
gmrm-gpu analyze other.tif --config movie_analysis/analysis.json""",
    "study": """\
gmrm-gpu study movie.tif --components 3
gmrm-gpu study sim/movie.tif --truth sim/truth.tif --truth-value 2
gmrm-gpu study movie.tif --rates 0.1,0.01 --replicates 20,200 --memory 2GB --threads 4
gmrm-gpu study movie.tif --components 3 --resume
gmrm-gpu study movie.tif --components 3 --workers 4
gmrm-gpu study movie.tif --components 3 --scheduler tcp://host:8786""",
    "status": """\
gmrm-gpu status movie_study
gmrm-gpu status movie_study --follow""",
    "plan": """\
gmrm-gpu plan movie.tif --components 3 --width 1%
gmrm-gpu plan movie.tif --width 0.02um3 --pixel-size 5nm --thickness 0.5um --schemes fixed,stratified,lines
gmrm-gpu plan --expect 45,118,172 --sigmas 7,9,12 --size 512x512x100 --width 500px""",
    "bench": """\
gmrm-gpu bench
gmrm-gpu bench movie.tif --components 3 --method paper --out bench
gmrm-gpu bench --size 1024x1024x100 --device gpu --quick""",
    "thin": """\
gmrm-gpu thin movie.tif --rate 0.01 --out thin.npz
gmrm-gpu thin movie.tif --rate 0.1 --scheme lines --seed 3
gmrm-gpu thin scan.csv --frames 0:50 --out first50.npz
gmrm-gpu thin frames.tif --visited mask.png --out visits.npz""",
    "manifest": """\
gmrm-gpu manifest movie.tif truth.tif
gmrm-gpu manifest movie.tif --check""",
    "live": """\
gmrm-gpu live simulation --rate 0.1
gmrm-gpu live /data/camera --rate 0.05 --pixel-size 5nm --frame-time 0.2s --out tonight
gmrm-gpu live movie.tif --simulate 25fps --rate 0.1 --components 3 --radius 5
gmrm-gpu live zmq --rate 0.1 --idle 60s
gmrm-gpu live --resume tonight.live""",
    "report": """\
gmrm-gpu report movie_study""",
    "demo": """\
gmrm-gpu demo --quick
gmrm-gpu demo --out demo --overwrite
gmrm-gpu demo --size 512x512x300 --device gpu""",
    "doctor": """\
gmrm-gpu doctor""",
}
