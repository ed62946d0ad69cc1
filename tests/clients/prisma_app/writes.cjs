// The application at work: reads a line with what it does next, and prints when it is done.
//
// Arguments: its database; video IDs by open_id, as JSON. It begins with the first ten of each.

const readline = require("node:readline");
const { PrismaClient } = require("@prisma/client");
const { PrismaPg } = require("@prisma/adapter-pg");

const [url, given] = process.argv.slice(2);
const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: url }) });
const ids = JSON.parse(given);
const live = (openId) => ({ deletedAt: null, owner: { openId } });
let held = []; // rows as they were read at first, before any cover came

const next = (openId, count) => ids[openId].splice(0, count);
const owner = (openId) => prisma.user.findUniqueOrThrow({ where: { openId } });

async function newVideos(openId, count) {
  const { id } = await owner(openId);
  return next(openId, count).map((videoId) => ({ ownerId: id, videoId }));
}

const steps = {
  async sign_up() {
    for (const openId of Object.keys(ids)) {
      const videos = { create: next(openId, 10).map((videoId) => ({ videoId })) };
      await prisma.user.create({ data: { openId, videos } });
    }
    await prisma.user.create({ data: {} });
    held = await prisma.video.findMany();
  },

  async save_stale_rows() {
    for (const { id, ...row } of held)
      await prisma.video.update({ where: { id }, data: { ...row, title: "saved whole" } });
  },

  async bulk() {
    await prisma.video.createMany({ data: await newVideos("ann", 3) });
    const again = held.slice(0, 3).map(({ ownerId, videoId }) => ({ ownerId, videoId }));
    await prisma.video.createMany({ data: [...again, ...(await newVideos("bob", 2))], skipDuplicates: true });
    await prisma.video.createManyAndReturn({ data: await newVideos("bob", 1) });
    await prisma.video.updateMany({ where: live("ann"), data: { coverImageUrl: "", coverExpiresAt: new Date() } });
    const [one] = await prisma.video.findMany({ where: live("bob"), take: 1 });
    await prisma.video.updateMany({ where: { id: one.id }, data: { deletedAt: new Date() } });
  },

  async upsert() {
    const [video] = await newVideos("bob", 1);
    for (const title of ["made", "updated"])
      await prisma.video.upsert({
        where: { ownerId_videoId: video },
        create: { ...video, title },
        update: { title, coverImageUrl: null },
      });
    const carl = await owner("carl");
    await prisma.user.update({
      where: { openId: "ann" },
      data: { videos: { connectOrCreate: next("ann", 1).map((videoId) => ({
        where: { ownerId_videoId: { ownerId: carl.id, videoId } }, create: { videoId } })) } },
    });
  },

  async transactions() {
    const [kept, undone] = await newVideos("ann", 2);
    await prisma.$transaction([
      prisma.video.create({ data: kept }),
      prisma.video.updateMany({ where: { videoId: kept.videoId }, data: { title: "kept" } }),
    ]);
    const rolledBack = prisma.$transaction(async (inner) => {
      await inner.video.create({ data: undone });
      await inner.user.delete({ where: { openId: "bob" } });
      throw new Error("undone");
    });
    await rolledBack.then(() => process.exit(1), () => {});
  },

  async remove() {
    const [first, ...others] = await prisma.video.findMany({ where: live("ann") });
    await prisma.video.delete({ where: { id: first.id } });
    await prisma.video.deleteMany({ where: { id: { in: others.slice(0, 3).map((each) => each.id) } } });
    await prisma.user.delete({ where: { openId: "carl" } }); // the database cascades
  },

  async expiries() {
    const videos = await prisma.video.findMany({ where: { deletedAt: null }, orderBy: { coverExpiresAt: "asc" } });
    return videos.map((each) => each.coverExpiresAt.toISOString());
  },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const said = await steps[line]();
    console.log(JSON.stringify([line, ...(said ?? [])]));
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
