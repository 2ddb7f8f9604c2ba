const search = document.getElementById("search");
const entries = [...document.querySelectorAll("article")].map((article) => ({
  article,
  link: document.querySelector(`.contents a[href="#${CSS.escape(article.id)}"]`).parentElement,
  text: article.textContent.toLowerCase(),
}));

function filter() {
  const words = search.value.toLowerCase().split(/\s+/);
  for (const { article, link, text } of entries) {
    article.hidden = link.hidden = !words.every((word) => text.includes(word));
  }
  for (const section of document.querySelectorAll("section")) {
    section.hidden = !section.querySelector("article:not([hidden])");
  }
  for (const list of document.querySelectorAll(".contents ul")) {
    list.previousElementSibling.hidden = !list.querySelector("li:not([hidden])");
  }
  document.getElementById("none").hidden = entries.some(({ article }) => !article.hidden);
}

search.addEventListener("input", filter);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== search) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "Escape" && search.value) {
    search.value = "";
    filter();
  }
});
