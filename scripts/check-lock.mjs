// package-lock.json must be complete: npm install can write a lock that lacks a platform's optional packages (when a registry does
// not have them yet), and npm ci then refuses it, on every machine. Also refused: packages without a checksum.
import { readFileSync } from "node:fs";

const EXACT = /^\d+\.\d+\.\d+[^ ]*$/;

/** What is wrong with a lock file, one line each; empty when it is complete. */
export function lockProblems(lock) {
  const { packages } = lock;
  const problems = [];
  for (const [location, entry] of Object.entries(packages)) {
    const name = location === "" ? "<root>" : location;
    if (location !== "" && entry.link !== true && entry.inBundle !== true && entry.integrity === undefined) {
      problems.push(`${name} has no checksum (integrity)`);
    }
    for (const [dependency, range] of Object.entries(entry.optionalDependencies ?? {})) {
      const found = lookUp(packages, location, dependency);
      if (found === undefined) problems.push(`${name} asks for ${dependency}@${range}, which the lock lacks`);
      else if (EXACT.test(range) && found.version !== range)
        problems.push(`${name} asks for ${dependency}@${range}, the lock has ${found.version}`);
    }
  }
  return problems;
}

/** Node's look-up: in the package's own node_modules, then in each folder above. */
function lookUp(packages, location, dependency) {
  for (let folder = location; ; folder = folder.slice(0, Math.max(folder.lastIndexOf("node_modules/") - 1, 0))) {
    const found = packages[`${folder === "" ? "" : `${folder}/`}node_modules/${dependency}`];
    if (found !== undefined || folder === "") return found;
  }
}

if (process.argv[1] === import.meta.filename) {
  const file = process.argv[2] ?? "package-lock.json";
  const problems = lockProblems(JSON.parse(readFileSync(file, "utf8")));
  if (problems.length > 0) {
    for (const problem of problems) console.error(problem);
    console.error(`${file} is not complete: choose versions whose platform packages the registry has, and write the lock again.`);
    process.exit(1);
  }
  console.log(`${file} is complete.`);
}
