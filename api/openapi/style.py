"""How the pages look, and the policy that lets exactly this style in and nothing else."""

import base64
import hashlib

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--paper:#fff;--panel:#f6f8fa;--line:#d5dae0;--link:#0757b8;
--get:#116329;--post:#0550ae;--put:#7d4e00;--delete:#a40e26;--mark:#fff3c4;--key:#0550ae;--text:#116329}
@media(prefers-color-scheme:dark){:root{--ink:#e2e7ed;--soft:#9aa5b1;--paper:#10141a;--panel:#1a2028;--line:#343d48;
--link:#79b8ff;--get:#56d364;--post:#79c0ff;--put:#e3b341;--delete:#ff8f88;--mark:#4a3d0c;--key:#79c0ff;
--text:#8ddb8c}}
*{box-sizing:border-box}
html{scroll-padding-top:1rem}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
a{color:var(--link);text-underline-offset:.15em}
:focus-visible{outline:2px solid var(--link);outline-offset:2px;border-radius:4px}
code,pre,.path{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;font-size:.875em}
p code,td code,dd code{background:var(--panel);border-radius:4px;padding:.1em .3em}
.page{display:grid;grid-template-columns:17rem minmax(0,1fr);max-width:84rem;margin:0 auto}
nav{position:sticky;top:0;align-self:start;max-height:100vh;overflow-y:auto;padding:1.5rem 1rem 2rem 1.5rem;
font-size:.875rem}
nav h2{margin:1.1rem 0 .2rem;font-size:.875rem}
nav ul{list-style:none;margin:0;padding:0}
nav li a{display:block;padding:.15rem 0;color:var(--soft);text-decoration:none}
nav a:hover{color:var(--link);text-decoration:underline}
main{padding:1.5rem 2rem 4rem;min-width:0}
main.alone{max-width:58rem;margin:0 auto}
h1{margin:0 0 .5rem;font-size:2rem;line-height:1.2}
h1 small{font-size:1rem;font-weight:400;color:var(--soft)}
main h2{margin:2.75rem 0 .25rem;font-size:1.375rem}
h2::first-letter{text-transform:uppercase}
h4{margin:1.25rem 0 .35rem;font-size:.8125rem;color:var(--soft);text-transform:uppercase;letter-spacing:.04em}
p{margin:.35rem 0 .75rem;max-width:46rem}
details.block{border:1px solid var(--line);border-radius:8px;margin:.5rem 0;background:var(--paper)}
details.block>summary{padding:.55rem .9rem;border-radius:8px;display:flex;flex-wrap:wrap;gap:.15rem .75rem;
align-items:baseline}
details.block>summary:hover{background:var(--panel)}
details.block[open]>summary{border-bottom:1px solid var(--line);border-radius:8px 8px 0 0;background:var(--panel)}
summary{cursor:pointer}
.inside{padding:.75rem .9rem 1rem;scroll-margin-top:4.5rem}
.inside:target{background:linear-gradient(var(--mark),transparent 3.5rem)}
.method{min-width:4.25rem;font-weight:700;font-size:.8125rem;letter-spacing:.03em}
.get,.head{color:var(--get)}.post{color:var(--post)}.put,.patch{color:var(--put)}.delete{color:var(--delete)}
.path{overflow-wrap:anywhere;font-weight:600}
.says{color:var(--soft);flex:1 1 14rem}
.token{color:var(--soft);font-size:.8125rem}
pre{margin:.35rem 0 .75rem;padding:.75rem .9rem;background:var(--panel);border:1px solid var(--line);
border-radius:8px;
overflow-x:auto;line-height:1.45;tab-size:2}
pre b{font-weight:400;color:var(--key)}pre i{font-style:normal;color:var(--text)}
details.example{margin:.25rem 0}details.example>summary{color:var(--link);font-size:.875rem}
table{border-collapse:collapse;width:100%;table-layout:fixed;font-size:.9375rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .8rem .4rem 0;border-bottom:1px solid var(--line)}
thead th{font-size:.8125rem;color:var(--soft);font-weight:600}
thead th:first-child{width:13rem}thead th:nth-child(2){width:5.5rem}
tbody th{font-weight:400;width:13rem;overflow-wrap:anywhere}
td.type{width:13rem;color:var(--soft);overflow-wrap:anywhere}
table.answers tbody th,td.status{width:5.5rem;font-variant-numeric:tabular-nums;font-weight:600}
.note{color:var(--soft);font-size:.875rem}
.other{display:block;color:var(--soft);font-size:.875rem}
tr:target{background:var(--mark)}
@media(max-width:56rem){.page{display:block}nav{position:static;max-height:none;padding:1rem 1rem 0}
nav .list{display:none}
nav h2{display:inline-block;margin:0 1rem .35rem 0}
main{padding:1rem 1rem 3rem}h1{font-size:1.625rem}thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;
overflow:hidden}
table,tbody,tr,th,td{display:block;width:auto!important}tr{padding:.5rem 0;border-bottom:1px solid var(--line)}
th,td{padding:.1rem 0;border:0}.method{min-width:0}.inside{scroll-margin-top:7rem}}
@media print{nav{display:none}.page{display:block}}
"""
_digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
