// Runs before the first paint (a classic script in the head), so that a chosen theme never flashes.
// "auto" follows the system; the attribute is then absent and CSS decides.

(() => {
  const root = document.documentElement;
  let chosen = "auto";
  try {
    chosen = JSON.parse(localStorage.getItem("gangline.theme")) ?? "auto";
  } catch (error) {
    console.info("no theme recalled:", error.name);
  }
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
})();
