// dockerode, on which most programs in JavaScript that speak to Docker are built. Prints a word for every step.
const assert = require("node:assert/strict");
const { PassThrough, Readable } = require("node:stream");
const Docker = require("dockerode");

const docker = new Docker();

async function text(stream) {
  const parts = [];
  for await (const part of stream) parts.push(Buffer.from(part));
  return Buffer.concat(parts).toString();
}

// Takes a multiplexed stream apart into [stdout, stderr].
async function split(stream) {
  const out = new PassThrough();
  const errors = new PassThrough();
  docker.modem.demuxStream(stream, out, errors);
  stream.on("end", () => { out.end(); errors.end(); });
  return Promise.all([text(out), text(errors)]);
}

async function main() {
  assert.equal((await docker.ping()).toString(), "OK");
  assert.equal((await docker.version()).ApiVersion, "1.51");
  assert.equal((await docker.info()).OSType, "linux");
  const events = await docker.getEvents({ filters: { type: ["container"] } });
  const heard = [];
  events.on("data", (part) => heard.push(...part.toString().trim().split("\n").map((line) => JSON.parse(line).Action)));
  console.log("system");

  const said = new PassThrough();
  const collected = text(said);
  const [result, ran] = await docker.run("busybox", ["sh", "-c", "echo hello; exit 3"], said, { Tty: true });
  said.end();
  assert.equal(result.StatusCode, 3);
  assert.equal(await collected, "hello\r\n");
  await ran.remove();
  console.log("run");

  await docker.createVolume({ Name: "data", Labels: { a: "b" } });
  const container = await docker.createContainer({
    Image: "busybox", name: "web", Cmd: ["sh", "-c", "echo out; echo err >&2; cat; sleep 1000"], OpenStdin: true, StdinOnce: true,
    Env: ["A=b"], Labels: { part: "web" }, HostConfig: { Binds: ["data:/data"], Memory: 64 << 20 },
  });
  const taken = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  await container.start();
  taken.write("typed\n");
  taken.end();
  await new Promise((resolve) => setTimeout(resolve, 500));
  const written = await container.logs({ stdout: true, stderr: true, follow: false });
  assert.deepEqual(await split(Readable.from([written])), ["out\ntyped\n", "err\n"]);
  taken.destroy();
  console.log("create attach logs");

  const exec = await container.exec({ Cmd: ["sh", "-c", "cat; exit 4"], AttachStdin: true, AttachStdout: true });
  const stream = await exec.start({ hijack: true, stdin: true });
  stream.end("through exec\n");
  assert.deepEqual(await split(stream), ["through exec\n", ""]);
  assert.equal((await exec.inspect()).ExitCode, 4);
  console.log("exec");

  const shown = await container.inspect();
  assert.equal(shown.State.Running, true);
  assert.equal(shown.Mounts[0].Name, "data");
  assert.deepEqual((await docker.listContainers({ filters: { label: ["part=web"] } })).map((each) => each.Names), [["/web"]]);
  assert.ok((await container.top()).Processes.length >= 1);
  assert.ok((await container.stats({ stream: false })).cpu_stats);
  console.log("inspect top stats");

  const archive = await container.getArchive({ path: "/etc/passwd" });
  const chunks = [];
  for await (const part of archive) chunks.push(part);
  await container.putArchive(Buffer.concat(chunks), { path: "/data" });
  assert.match((await text(await container.getArchive({ path: "/data/passwd" }))), /root:/);
  console.log("archive");

  await container.pause();
  await container.unpause();
  await container.rename({ name: "front" });
  await container.update({ Memory: 96 << 20, MemorySwap: 192 << 20 });
  await container.restart({ t: 0 });
  await container.stop({ t: 0 });
  assert.equal((await container.wait()).StatusCode, 137);
  console.log("states");

  const image = docker.getImage("busybox");
  await image.tag({ repo: "other/name", tag: "1" });
  assert.equal((await docker.listImages({ filters: { reference: ["other/name"] } })).length, 1);
  assert.equal((await image.history()).length, 1);
  const saved = await docker.getImage("other/name:1").get();
  const loaded = await docker.loadImage(saved);
  await new Promise((resolve, reject) => docker.modem.followProgress(loaded, (error, steps) => (error ? reject(error) : resolve(steps))));
  await docker.getImage("other/name:1").remove();
  console.log("images");

  const network = await docker.createNetwork({ Name: "inner" });
  await network.connect({ Container: "front" });
  await network.disconnect({ Container: "front" });
  await network.remove();
  console.log("networks");

  await container.remove({ v: true });
  await docker.getVolume("data").remove();
  assert.deepEqual((await docker.listVolumes()).Volumes, []);
  await assert.rejects(container.inspect(), { statusCode: 404 });
  assert.ok((await docker.df()).Images.length === 1);
  for (const action of ["create", "start", "die", "destroy", "pause", "rename"]) assert.ok(heard.includes(action), action);
  events.destroy();
  console.log("remove events df");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
