// Small settings that outlive the page, and what outlives a reload of this tab only. A browser that
// refuses storage loses only the memory.

export const remember = (name, value) => keep("localStorage", name, value);
export const rememberInTab = (name, value) => keep("sessionStorage", name, value);

/** The remembered value, or `otherwise` where there is none or it cannot be read. */
export const recall = (name, otherwise) => find("localStorage", name, otherwise);
export const recallInTab = (name, otherwise) => find("sessionStorage", name, otherwise);

function keep(store, name, value) {
  try {
    window[store].setItem(`gangline.${name}`, JSON.stringify(value));
  } catch (error) {
    console.info("not remembered:", name, error.name);
  }
}

function find(store, name, otherwise) {
  try {
    const text = window[store].getItem(`gangline.${name}`);
    return text === null ? otherwise : JSON.parse(text);
  } catch (error) {
    console.info("not recalled:", name, error.name);
    return otherwise;
  }
}
