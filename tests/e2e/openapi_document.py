"""The server's own OpenAPI document as a judge: does an answer, or the body of a request, fit what it says?"""
import json

from jsonschema import Draft202012Validator

METHODS = ("get", "post")


class Document:
    def __init__(self, document):
        self.document = document
        self.operations = {(method, path): operation for path, item in document["paths"].items()
                           for method, operation in item.items() if method in METHODS}

    def follow(self, node):
        while "$ref" in node:
            target = node["$ref"]
            node = self.document
            for name in target.removeprefix("#/").split("/"):
                node = node[name]
        return node

    def errors(self, schema, value):
        """What is wrong with the value, one line each; content schemas of texts are looked into."""
        validator = Draft202012Validator({**schema, "components": self.document["components"]})
        return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(value)]

    def closed(self):
        """The document under which an answer with a member that it does not name is wrong. Requests are left alone."""
        copy = Document(json.loads(json.dumps(self.document)))
        seen = set()
        for operation in copy.operations.values():
            for response in operation["responses"].values():
                for media in copy.follow(response)["content"].values():
                    copy._close(media["schema"], seen)
        return copy

    def _close(self, schema, seen):
        schema = self.follow(schema)
        if id(schema) in seen:
            return
        seen.add(id(schema))
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for key in ("items", "additionalProperties", "contentSchema"):
            if isinstance(schema.get(key), dict):
                self._close(schema[key], seen)
        for part in [*schema.get("anyOf", []), *schema.get("properties", {}).values()]:
            self._close(part, seen)

    def problems(self, method, path, status, headers, body):
        """What is wrong with an answer; headers are a mapping that knows no case."""
        operation = self.operations[method, path]
        if str(status) not in operation["responses"]:
            return [f"the status {status} is not documented"]
        response = self.follow(operation["responses"][str(status)])
        wrong = [problem for name, header in response["headers"].items() for problem in self._header_problems(name, header, headers)]
        media_type = headers.get("Content-Type", "").split(";")[0]
        if media_type not in response["content"]:
            return wrong + [f"the Content-Type {media_type!r} is not documented for {status}"]
        schema = response["content"][media_type]["schema"]
        if media_type == "application/json":
            return wrong + self.errors(schema, json.loads(body))
        if media_type == "text/event-stream":
            return wrong + [problem for event in events(body) for problem in self._event_problems(schema, event)]
        return wrong + self.errors(schema, body.decode())

    def _header_problems(self, name, header, headers):
        header, value = self.follow(header), headers.get(name)
        if value is None:
            return [f"the header {name} is missing"] if header.get("required") else []
        schema = self.follow(header["schema"])
        return [f"{name}: {error}" for error in self.errors(schema, int(value) if schema.get("type") == "integer" else value)]

    def _event_problems(self, schema, event):
        """An event fits one of the kinds of events of its stream, its data's JSON included."""
        kinds = [self.follow(kind) for kind in self.follow(schema).get("anyOf", [schema])]
        return min((self._kind_problems(kind, event) for kind in kinds), key=len)

    def _kind_problems(self, kind, event):
        wrong = self.errors(kind, event)
        data = kind["properties"]["data"]
        texts = [part for part in [data, *data.get("anyOf", [])] if "contentSchema" in part]
        is_text = any("const" in part and part["const"] == event["data"] for part in data.get("anyOf", []))
        if is_text:
            return wrong
        try:
            value = json.loads(event["data"])
        except ValueError as error:
            return wrong + [f"{event['data'][:100]!r} is not JSON: {error}"]
        if "event" in event and value.get("type") != event["event"]:
            wrong.append(f"the event {event['event']} has another type in its data")
        return wrong + self.errors(texts[0]["contentSchema"], value)


def events(body):
    """The events of a stream as objects; comments are left out."""
    found = []
    for block in body.decode().split("\n\n"):
        lines = [line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            found.append(dict(lines))
    return found
