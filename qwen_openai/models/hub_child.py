"""The child process that talks to ModelScope: lists a repository, or downloads files of it.

Uses the `modelscope` package's own client, `modelscope_hub`. It takes one JSON object as its
argument (`hub.py` writes it), exits 0 or says on its last line why not. Imported by nobody: the
client and what it pulls in stay out of the gateway's memory.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from modelscope_hub import HubApi
from modelscope_hub.errors import FileDownloadError

from qwen_openai.models.hub import RemoteFile, Request


def _list(api: HubApi, request: Request) -> None:
    listing = [
        asdict(RemoteFile(file.path, file.size, file.sha256 or ""))
        for file in api.list_repo_files(
            request["repository"], "model", revision=request["revision"]
        )
        if file.type != "tree"
    ]
    Path(request["into"]).write_text(json.dumps(listing), encoding="utf-8")


def _download(api: HubApi, request: Request, files: list[dict[str, str | int]]) -> None:
    try:
        api.download_repo(
            request["repository"],
            "model",
            revision=request["revision"],
            local_dir=request["into"],
            file_list=files,
        )
    except FileDownloadError as error:
        reasons = [str(reason) for reason in (error.failed_files or {}).values()]
        sys.exit((reasons or [str(error)])[0])


def main() -> None:
    request: Request = json.loads(sys.argv[1])
    api = HubApi(endpoint=request["endpoint"])
    files = request["files"]
    if files is None:
        _list(api, request)
    else:
        _download(api, request, files)


if __name__ == "__main__":
    main()
