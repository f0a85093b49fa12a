"""Ask at MLAAS with KServe's own client, in JSON and with binary data; what it was answered, as JSON."""

import asyncio
import json
import os

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def texts(binary: bool) -> InferInput:
    values = np.array(["INFN Frascati", "somewhere"], dtype=object)
    made = InferInput("text", list(values.shape), "BYTES")
    made.set_data_from_numpy(values, binary_data=binary)
    return made


async def main() -> None:
    url, name = os.environ["MLAAS"], "infn-structures"
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    ready = [await client.is_server_live(url), await client.is_server_ready(url), await client.is_model_ready(url, name)]
    labels = []
    for binary in (False, True):
        wanted = [RequestedOutput("label", parameters={"binary_data": binary}), RequestedOutput("score")]
        asked = InferRequest(name, [texts(binary)], request_id="r-1", request_outputs=wanted, parameters={"top_k": 2})
        answer = await client.infer(url, asked, model_name=name)
        assert answer.id == "r-1"  # of the version its client keeps nothing
        labels.append([one.decode() if isinstance(one, bytes) else one for one in answer.outputs[0].as_numpy().tolist()])
    await client.close()
    print(json.dumps({"ready": ready, "labels": labels}))


asyncio.run(main())
