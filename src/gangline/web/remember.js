// Small settings that outlive the page. A browser that refuses storage loses only the memory.

export function remember(name, value) {
  try {
    localStorage.setItem(`gangline.${name}`, JSON.stringify(value));
  } catch (error) {
    console.info("not remembered:", name, error.name);
  }
}

/** The remembered value, or `otherwise` where there is none or it cannot be read. */
export function recall(name, otherwise) {
  try {
    const text = localStorage.getItem(`gangline.${name}`);
    return text === null ? otherwise : JSON.parse(text);
  } catch (error) {
    console.info("not recalled:", name, error.name);
    return otherwise;
  }
}
